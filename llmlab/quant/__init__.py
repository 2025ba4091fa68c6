"""Quant tags and formats, conversion to GGUF, and quantization."""
