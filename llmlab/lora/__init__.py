"""LoRA adapters: where they come from, what their files say, and how each engine takes them.

An adapter is read and checked from its files alone, before an engine sees it. llama.cpp gets a GGUF file made from
the PEFT folder; vLLM gets the folder, or a new one made of a scale or a mix.
"""
