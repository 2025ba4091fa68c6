"""LoRA fine-tuning: data, the training loop, its result, and merging."""
