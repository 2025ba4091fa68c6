"""What guided generation costs: decode tokens/s with and without a schema, at a vocabulary of 32,000, one sequence.

Makes random-weight Llamas with a byte-level BPE of 32,000 tokens (trained on Python's own library), loads them in both
engines, and alternates guided and unguided runs of the same length. The first use of a schema (compiling it, and the
mask library's view of the vocabulary) is timed apart.

    python bench/guided.py [--engines llamacpp,vllm] [--tokens 200] [--rounds 5]
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sysconfig
import tempfile
import time
from pathlib import Path

import llmlab
import llmlab.zoo

NANO = Path(llmlab.zoo.__file__).parent / "models" / "nano"
VOCABULARY = 32_000
# hidden size, layers, feed-forward size
SIZES = {"16 M": (256, 6, 704), "64 M": (512, 10, 1408), "220 M": (1024, 12, 2816)}


def schema(**bounds: int) -> dict[str, object]:
    """Records of four fields, more of them than any run will write."""
    text = {"type": "string", **bounds}
    record = {
        "name": text,
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "mood": {"enum": ["good", "bad", "so so"]},
        "tags": {"type": "array", "items": text, "maxItems": 3},
    }
    item = {"type": "object", "properties": record, "required": list(record), "additionalProperties": False}
    return {"type": "array", "minItems": 400, "items": item}


# Inside a string of bounded length the mask must count characters, which is the dearest case.
SCHEMAS = {"plain": schema(), "maxLength 20": schema(maxLength=20)}


def make_tokenizer(folder: Path) -> None:
    """Train the vocabulary and save it with nano's chat template."""
    from transformers import AutoTokenizer

    files = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")) + sorted(
        Path(sysconfig.get_path("purelib")).glob("torch/*.py")
    )
    texts = (file.read_text(encoding="utf-8", errors="replace") for file in files)
    AutoTokenizer.from_pretrained(NANO).train_new_from_iterator(texts, VOCABULARY).save_pretrained(folder)


def make_model(folder: Path, tokenizer: Path, hidden: int, layers: int, feed: int) -> None:
    """Write a random-weight Llama."""
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
        shutil.copy(file, folder)
    assert len(AutoTokenizer.from_pretrained(folder)) == VOCABULARY


def measure(model: llmlab.Model, schema: object, tokens: int, rounds: int, temperature: float) -> dict[str, float]:
    """Median decode speeds, guided and not, in alternation."""
    started = time.perf_counter()
    first = model.generate("hi", schema=schema, max_tokens=2, seed=0)
    first_s = time.perf_counter() - started
    speeds: dict[str, list[float]] = {"free": [], "guided": []}
    for round_ in range(rounds + 1):
        for kind, asked in (("free", {"ignore_eos": True}), ("guided", {"schema": schema})):
            answer = model.generate("hi", max_tokens=tokens, temperature=temperature, seed=round_, **asked)
            assert len(answer.token_ids) == tokens, (kind, answer.finish_reason)
            if round_:
                speeds[kind].append(answer.timings.tokens_per_s or 0.0)
    ratios = [g / f for g, f in zip(speeds["guided"], speeds["free"], strict=True)]
    return {
        "unguided tokens/s": statistics.median(speeds["free"]),
        "guided tokens/s": statistics.median(speeds["guided"]),
        "ratio": statistics.median(ratios),
        "compile s": first.guidance.compile_s,
        "first use s": first_s,
    }


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engines", default="llamacpp,vllm")
    parser.add_argument("--sizes", default=",".join(SIZES))
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    found = []
    with tempfile.TemporaryDirectory() as scratch:
        make_tokenizer(Path(scratch, "tokenizer"))
        lab = llmlab.Lab()
        for size in args.sizes.split(","):
            folder = Path(scratch, size.replace(" ", ""))
            folder.mkdir()
            make_model(folder, Path(scratch, "tokenizer"), *SIZES[size])
            for engine in args.engines.split(","):
                model = lab.load(str(folder), engine=engine, name=engine, ctx=1024, max_concurrency=1)
                for name, asked in SCHEMAS.items():
                    figures = measure(model, asked, args.tokens, args.rounds, args.temperature)
                    row = {"model": size, "engine": engine, "quant": model.quant, "schema": name, **figures}
                    found.append(row)
                    shown = (f"{k}: {v:.3f}" if isinstance(v, float) else f"{k}: {v}" for k, v in row.items())
                    print("  ".join(shown), flush=True)
                model.unload()
        lab.close()
    if args.json:
        args.json.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
