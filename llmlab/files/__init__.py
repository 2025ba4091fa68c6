"""Model files, read from their headers: GGUF, safetensors, configuration, quant tags, and the memory they need."""
