"""One contender's decode speed, in a separate process: `python bench/one.py CONTENDER [--concurrency N ...]`.

Prints one JSON object: concurrency -> tokens/s of each round (all generated tokens divided by the seconds from the
first request to the last token, including prompt processing; greedy, end of turn ignored, so every contender generates
the same number of tokens from the same token ids).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable

PROMPTS = [f"Tell me a short story about a fox and {n} friends." for n in range(64)]
Run = Callable[[list[str], int], int]


def ours(engine: str) -> Run:
    """The llmlab engine, through the public API."""
    from llmlab import Lab

    lab = Lab()
    model = lab.load("nano", engine=engine, max_concurrency=16)

    def run(prompts: list[str], tokens: int) -> int:
        options = {"temperature": 0, "max_tokens": tokens, "ignore_eos": True}
        return sum(r.usage.completion_tokens for r in model.generate(prompts, **options))

    return run


def raw_llama() -> Run:
    """`llama_cpp.Llama`, sequentially: it has no batching."""
    from llama_cpp import Llama

    from llmlab import zoo
    from llmlab.quant.gguf_cache import to_gguf

    llama = Llama(str(to_gguf(zoo.path("nano"))), n_ctx=2048, n_threads=os.cpu_count(), verbose=False)

    def run(prompts: list[str], tokens: int) -> int:
        made = 0
        for prompt in prompts:
            ids = llama.tokenize(f"<|user|>{prompt}<|end|><|assistant|>".encode(), add_bos=False, special=True)
            for count, _ in enumerate(llama.generate(ids, temp=0.0), 1):
                if count == tokens:
                    break
            made += count
        return made

    return run


def raw_vllm() -> Run:
    """The raw `LLM.generate` of vLLM."""
    os.environ["VLLM_LOGGING_LEVEL"] = "ERROR"
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    os.environ["VLLM_CPU_KVCACHE_SPACE"] = "1"
    from vllm import LLM, SamplingParams

    from llmlab import zoo

    llm = LLM(
        str(zoo.path("nano")),
        dtype="bfloat16",
        max_num_seqs=16,
        max_model_len=2048,
        enforce_eager="--eager" in sys.argv,
    )

    def run(prompts: list[str], tokens: int) -> int:
        params = SamplingParams(temperature=0, max_tokens=tokens, ignore_eos=True)
        texts = [f"<|user|>{prompt}<|end|><|assistant|>" for prompt in prompts]
        return sum(len(r.outputs[0].token_ids) for r in llm.generate(texts, params, use_tqdm=False))

    return run


CONTENDERS: dict[str, Callable[[], Run]] = {
    "llmlab-llamacpp": lambda: ours("llamacpp"),
    "llmlab-vllm": lambda: ours("vllm"),
    "llama_cpp.Llama": raw_llama,
    "vllm.LLM": raw_vllm,
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("contender", choices=CONTENDERS)
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 8, 16])
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--eager", action="store_true")
    args = parser.parse_args()
    run = CONTENDERS[args.contender]()
    speeds: dict[int, list[float]] = {}
    for concurrency in args.concurrency:
        prompts = PROMPTS[:concurrency]
        run(prompts, 16)  # warm up
        for _ in range(args.rounds):
            started = time.perf_counter()
            made = run(prompts, args.tokens)
            speeds.setdefault(concurrency, []).append(made / (time.perf_counter() - started))
    print(json.dumps(speeds))


if __name__ == "__main__":
    main()
