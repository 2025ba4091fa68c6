"""LoRA adapters: finding, reading, checking, converting, mixing and attaching them."""
