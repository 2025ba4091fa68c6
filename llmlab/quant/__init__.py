"""Quant tags and formats, conversion to GGUF, and quantizing."""
