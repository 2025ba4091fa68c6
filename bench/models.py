"""Random-weight Llamas for speed measurements, with a vocabulary of 32,000, like Llama's own."""

from __future__ import annotations

import shutil
import sysconfig
from pathlib import Path

import llmlab.zoo

NANO = Path(llmlab.zoo.__file__).parent / "models" / "nano"
VOCABULARY = 32_000
# hidden size, layers, feed-forward size
SIZES = {"16 M": (256, 6, 704), "64 M": (512, 10, 1408), "220 M": (1024, 12, 2816)}


def make_tokenizer(folder: Path) -> None:
    """Train the vocabulary (on the Python files of the standard library and torch) and save it with nano's chat template."""
    from transformers import AutoTokenizer

    files = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")) + sorted(
        Path(sysconfig.get_path("purelib")).glob("torch/*.py")
    )
    texts = (file.read_text(encoding="utf-8", errors="replace") for file in files)
    AutoTokenizer.from_pretrained(NANO).train_new_from_iterator(texts, VOCABULARY).save_pretrained(folder)


def make_model(folder: Path, tokenizer: Path, hidden: int, layers: int, feed: int) -> None:
    """Write a random-weight Llama with the tokenizer's files."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=hidden, num_hidden_layers=layers, intermediate_size=feed,
        num_attention_heads=hidden // 64, num_key_value_heads=hidden // 64, max_position_embeddings=2048,
        tie_word_embeddings=True, eos_token_id=AutoTokenizer.from_pretrained(tokenizer).eos_token_id,
    )  # fmt: skip
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    for file in tokenizer.iterdir():
        shutil.copy2(file, folder)


def cached(size: str = "220 M") -> Path:
    """The folder of one of `SIZES` in llmlab's cache, created if missing."""
    from llmlab.config import cache_dir

    folder = cache_dir() / "bench" / f"random-{size.replace(' ', '').lower()}"
    if not (folder / "model.safetensors").exists():
        tokenizer = folder.with_name("tokenizer-32k")
        if not (tokenizer / "tokenizer.json").exists():
            make_tokenizer(tokenizer)
        make_model(folder, tokenizer, *SIZES[size])
    return folder
