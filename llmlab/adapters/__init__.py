"""LoRA adapters: where they come from, what their files say, and how each engine takes them."""
