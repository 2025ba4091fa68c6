"""What this machine has: GPUs, memory, and which engine builds are installed."""
