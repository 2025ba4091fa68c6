"""Random-weight Llamas for speed measurements, with a vocabulary of 32,000, like Llama's own.

`pair` makes a model and a draft model whose next tokens agree as often as those of a trained pair.
"""

from __future__ import annotations

import random
import shutil
import sysconfig
from pathlib import Path

import llmlab.zoo
from llmlab.config import cache_dir

NANO = Path(llmlab.zoo.__file__).parent / "models" / "nano"
VOCABULARY = 32_000
AGREEMENT = 0.8
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


def make_model(
    folder: Path, tokenizer: Path, hidden: int, layers: int, feed: int, follows: list[int] | None = None
) -> None:
    """Write a random-weight Llama with the tokenizer's files.

    Args:
        follows: each token's likeliest successor, a permutation; None for random logits.
    """
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=hidden, num_hidden_layers=layers, intermediate_size=feed,
        num_attention_heads=hidden // 64, num_key_value_heads=hidden // 64, max_position_embeddings=2048,
        tie_word_embeddings=follows is None, eos_token_id=AutoTokenizer.from_pretrained(tokenizer).eos_token_id,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    if follows is not None:
        with torch.no_grad():
            # The layers compute as much as any others, but change the hidden state little: its product with a row of
            # the output matrix is the largest where that row is the embedding of the token.
            embedding = model.model.embed_tokens.weight.normal_()
            model.lm_head.weight[torch.tensor(follows)] = embedding
            for layer in model.model.layers:
                layer.self_attn.o_proj.weight *= 0.1
                layer.mlp.down_proj.weight *= 0.1
    model.to(torch.bfloat16).save_pretrained(folder)
    for file in tokenizer.iterdir():
        shutil.copy2(file, folder)


def cached(size: str = "220 M") -> Path:
    """The folder of one of `SIZES` in llmlab's cache, created if missing."""
    folder = cache_dir() / "bench" / f"random-{size.replace(' ', '').lower()}"
    if not (folder / "model.safetensors").exists():
        make_model(folder, _tokenizer(folder.parent), *SIZES[size])
    return folder


def pair() -> tuple[Path, Path]:
    """A model of 220 M parameters and a draft model of a tenth of its size, which agree on 80 % of all next tokens."""
    folder = cache_dir() / "bench"
    model, draft = folder / "agreeing-220m", folder / "agreeing-21m"
    if not (draft / "model.safetensors").exists():
        source = random.Random(0)
        # One cycle over all tokens, so that the text doesn't repeat itself.
        cycle = list(range(VOCABULARY))
        source.shuffle(cycle)
        follows = list(range(VOCABULARY))
        for at, token in enumerate(cycle):
            follows[token] = cycle[(at + 1) % len(cycle)]
        others = [token for token in cycle if source.random() > AGREEMENT]
        differing = list(follows)
        for at, token in enumerate(others):
            differing[token] = follows[others[(at + 1) % len(others)]]
        make_model(model, _tokenizer(folder), *SIZES["220 M"], follows)
        make_model(draft, _tokenizer(folder), *SIZES["16 M"], differing)
    return model, draft


def _tokenizer(folder: Path) -> Path:
    tokenizer = folder / "tokenizer-32k"
    if not (tokenizer / "tokenizer.json").exists():
        make_tokenizer(tokenizer)
    return tokenizer
