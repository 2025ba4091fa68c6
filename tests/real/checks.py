"""What is checked of a family in an engine. Each check returns "" or the reason why it fails."""

import json
from pathlib import Path
from typing import Any, Literal

import numpy as np

from llmlab.errors import LlmLabError, UnsupportedError
from llmlab.files import token_ids
from llmlab.files.headers import read_header
from tests.adapters import adapters

TALKS = (
    [{"role": "user", "content": "Hello </s> 123!"}],
    [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What is  2+2?\n\n"},
        {"role": "assistant", "content": "4."},
        {"role": "user", "content": "Thanks — and größer?"},
    ],
)
SCHEMA = {"type": "object", "properties": {"a b": {"enum": [1, "two"]}, "c": {"type": "boolean"}},
          "required": ["a b", "c"], "additionalProperties": False}  # fmt: skip


def template(model: Any, original: Any, folder: Path) -> str:
    for talk in TALKS:
        if "Only user and assistant roles" in (original.chat_template or "") and talk[0]["role"] == "system":
            talk = talk[1:]
        wanted = original.apply_chat_template(talk, tokenize=False, add_generation_prompt=True)
        found = model.render(talk)
        if found != wanted:
            return f"renders {found[:60]!r} instead of {wanted[:60]!r}"
    return ""


def ids(model: Any, original: Any, folder: Path) -> str:
    def encode(text: str) -> list[int]:
        return original.encode(text, add_special_tokens=False)

    prompts = [model.render(TALKS[0]), model.render(TALKS[1][1:])]
    wrong = token_ids.differences(model.tokenize, encode, (*token_ids.TEXTS, *prompts))
    for prompt in prompts:
        tokens = encode(prompt)
        if model.detokenize(tokens).lstrip() != original.decode(tokens, skip_special_tokens=True).lstrip():
            hidden = [one for one in tokens if not model.detokenize([one]) and original.decode([one], True)]
            marks = ", ".join(original.decode([one]) for one in dict.fromkeys(hidden))
            return f"hides {marks}" if marks else f"shows {model.detokenize(tokens)[:50]!r}"
    return f"{len(wrong)} of {len(token_ids.TEXTS) + len(prompts)} texts differ, such as {wrong[0]!r}" if wrong else ""


def ends(model: Any, original: Any, folder: Path) -> str:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    declared = config["eos_token_id"]
    wanted = set(declared if isinstance(declared, list) else [declared])
    missing = wanted - set(model.facts.end_ids)
    extra = set(model.facts.end_ids) - wanted - {original.eos_token_id}
    text = original.convert_ids_to_tokens(sorted(missing | extra))
    return f"{'lacks' if missing else 'adds'} {', '.join(map(str, text))}" if missing or extra else ""


def guided(model: Any, original: Any, folder: Path) -> str:
    asked = [{"choice": ["yes", "no"]}, {"schema": SCHEMA}, {"regex": r" x[0-9]{3} hello"}]
    for one in asked:
        done = model.generate("Hi", temperature=1.0, seed=1, max_tokens=64, think=0, **one)
        if done.finish_reason != "stop":
            return f"{next(iter(one))}: {done.finish_reason} with {done.text[:40]!r}"
    return ""


def tools(model: Any, original: Any, folder: Path) -> str:
    def paint(colour: Literal["red", "blue"]) -> str:
        """Paint it."""
        return f"painted {colour}"

    done = model.generate(
        "Paint it red.", tools=[paint], tool_choice="paint", strict=True, temperature=1.0, seed=1, max_tokens=128,
        max_steps=1, think=0,
    )  # fmt: skip
    if not done.steps or done.steps[0].error:
        return f"no call in {done.text[:40]!r}" if not done.steps else done.steps[0].error
    return ""


def reasoning(model: Any, original: Any, folder: Path) -> str | None:
    try:
        done = model.generate("Hi", think=8, temperature=1.0, seed=1, max_tokens=32)
    except UnsupportedError as error:
        if "doesn't reason" in error.message:
            return None
        raise
    if "<think>" in done.text or "<|channel" in done.text:
        return f"marks of a thought in {done.text[:40]!r}"
    return "" if done.reasoning_tokens else "no token of a thought"


def lora(model: Any, original: Any, folder: Path) -> str:
    rng = np.random.default_rng(1)
    found = {}
    for tensor in read_header(folder).tensors:
        if tensor.name.endswith("self_attn.o_proj.weight"):
            at = f"base_model.model.{tensor.name.removesuffix('.weight')}"
            found[f"{at}.lora_A.weight"] = rng.normal(0, 1, (4, tensor.shape[1])).astype(np.float32)
            found[f"{at}.lora_B.weight"] = rng.normal(0, 1, (tensor.shape[0], 4)).astype(np.float32)
    place = adapters.write(folder.parent / f"{folder.name}-lora", found, rank=4, base=str(folder))
    greedy = {"raw": True, "temperature": 0, "max_tokens": 4, "ignore_eos": True}
    before = model.generate("Hi", **greedy).token_ids
    model.add_adapter("noise", place)
    try:
        after = model.generate("Hi", **greedy, adapter="noise").token_ids
    finally:
        model.remove_adapter("noise")
    return "" if after != before else "the adapter changes nothing"


CHECKS = {
    "template": template, "ids": ids, "end tokens": ends, "guided": guided, "tools": tools, "reasoning": reasoning,
    "LoRA": lora,
}  # fmt: skip


def run(model: Any, original: Any, folder: Path) -> dict[str, str]:
    """All checks of one loaded model: column -> "" or the reason; a column that doesn't apply is left out."""
    found = {}
    for name, check in CHECKS.items():
        try:
            why = check(model, original, folder)
            if why is not None:
                found[name] = why
        except LlmLabError as error:
            found[name] = error.message
    return found
