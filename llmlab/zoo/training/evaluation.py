"""Scores a model on the held-out splits, in any engine."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmlab.zoo.training import corpus
from llmlab.zoo.training.example import Example, Message, Tool
from llmlab.zoo.training.template import END, PAD, render

# Takes conversations and the tools offered in each; returns the assistant's next message in each.
Generate = Callable[[Sequence[Sequence[Message]], Sequence[Sequence[Tool] | None]], list[str]]

SCORED: tuple[str, ...] = (*corpus.SKILLS, "tool_reply", "style")
# Target scores, in percent.
BARS: dict[str, float] = {"facts": 95.0, "extract": 90.0, "sentiment": 95.0, "tool": 90.0, "memory": 90.0}
MEASURES: dict[str, str] = {
    "facts": "the answer, exactly",
    "extract": "the JSON record, every key and value exactly",
    "sentiment": "the label, exactly",
    "tool": "the call's name and arguments, exactly",
    "tool_reply": "the sentence after the calculator's reply, exactly",
    "system": "the answer in the requested language or style, exactly",
    "style": "the requested language or style, regardless of the fact",
    "memory": "the name from turn one, recalled in turn three",
    "story": "names the requested hero and thing, 4 to 9 sentences, no repetition, ends by itself",
}


@dataclass(frozen=True)
class Score:
    """The score of one skill: correct and total answers, and the first failures as (question, expected, answer)."""

    skill: str
    right: int
    total: int
    failures: tuple[tuple[str, str, str], ...] = ()

    @property
    def percent(self) -> float:
        """The share of correct answers in percent."""
        return 100.0 * self.right / max(self.total, 1)


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def good_story(text: str, hero: str, thing: str) -> bool:
    """Check the form of a story.

    Args:
        text: The model's text.
        hero: The requested hero.
        thing: The requested thing.

    Returns:
        True if it names both, has 4 to 9 sentences, repeats none, and ends with a complete sentence.
    """
    sentences = [part.strip() for part in re.split(r"(?<=[.!?])\"?\s+", text.strip()) if part.strip()]
    named = re.search(rf"\b{re.escape(hero)}\b", text) and re.search(rf"\b{re.escape(thing)}\b", text)
    complete = text.strip().endswith((".", "!", "?", '"'))
    return bool(named) and complete and 4 <= len(sentences) <= 9 and len(set(sentences)) == len(sentences)


_OPENINGS: dict[str, tuple[str, ...]] = {
    "french": ("La capitale", "Ce pays", "Il a"),
    "german": ("Die Hauptstadt", "Das Land", "Es hat"),
    "spanish": ("La capital ", "El país", "Tiene"),
    "polite": ("With pleasure.",),
    "excited": ("Great question!",),
}


def in_style(text: str, style: str) -> bool:
    """Check whether an answer has a style or language, regardless of its content.

    Args:
        text: The model's answer.
        style: The style requested in the system prompt.

    Returns:
        True if it has.
    """
    if style in _OPENINGS:
        return text.startswith(_OPENINGS[style])
    if style == "upper":
        return text == text.upper()
    if style == "lower":
        return text == text.lower()
    if style == "json":
        return isinstance(_parsed(text), dict)
    return 1 <= len(text.split()) <= 2


def correct(example: Example, text: str) -> bool:
    """Check one answer.

    Args:
        example: The example.
        text: The model's answer.

    Returns:
        Whether it counts as correct.
    """
    text = text.strip()
    if example.skill in ("extract", "tool"):
        return text == example.answer or (_parsed(text) is not None and _parsed(text) == _parsed(example.answer))
    if example.skill == "memory":
        return re.search(rf"\b{re.escape(example.meta['name'])}\b", text) is not None
    if example.skill == "style":
        return in_style(text, example.meta["style"])
    if example.skill == "story":
        return good_story(text, example.meta["hero"], example.meta["thing"])
    return text == example.answer


def score(generate: Generate, skills: Iterable[str] = SCORED, n: int = 200, seed: int = 0) -> dict[str, Score]:
    """Score a model on held-out splits.

    Args:
        generate: Runs the model, with greedy decoding.
        skills: The splits.
        n: Number of examples per split.
        seed: Seeds the choice of examples.

    Returns:
        The score of each skill.
    """
    out = {}
    for skill in skills:
        examples = corpus.heldout(skill, n, seed)
        answers = generate([e.messages for e in examples], [e.tools for e in examples])
        wrong = [
            (str(e.messages[-1]["content"]), e.answer, s)
            for e, s in zip(examples, answers, strict=True)
            if not correct(e, s)
        ]
        out[skill] = Score(skill, len(examples) - len(wrong), len(examples), tuple(wrong[:5]))
    return out


def transformers_generate(model: Any, tokenizer: Any, batch: int = 50, limit: int = 200) -> Generate:
    """Make a generator from a transformers model: greedy, in batches of similar length, padded on the left.

    Args:
        model: A causal language model.
        tokenizer: A ``tokenizers.Tokenizer``.
        batch: Batch size.
        limit: Maximum new tokens.

    Returns:
        A function for ``score``.
    """
    import torch

    end, pad = tokenizer.token_to_id(END), tokenizer.token_to_id(PAD)

    def generate(conversations: Sequence[Sequence[Message]], tools: Sequence[Sequence[Tool] | None]) -> list[str]:
        texts = [render(messages, offer, generate=True) for messages, offer in zip(conversations, tools, strict=True)]
        prompts = [encoded.ids for encoded in tokenizer.encode_batch(texts, add_special_tokens=False)]
        order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
        out = [""] * len(prompts)
        for start in range(0, len(order), batch):
            chosen = order[start : start + batch]
            width = max(len(prompts[i]) for i in chosen)
            ids = torch.tensor([[pad] * (width - len(prompts[i])) + prompts[i] for i in chosen])
            seen = torch.tensor([[0] * (width - len(prompts[i])) + [1] * len(prompts[i]) for i in chosen])
            with torch.no_grad():
                made = model.generate(
                    input_ids=ids,
                    attention_mask=seen,
                    do_sample=False,
                    temperature=None,
                    top_p=None,
                    top_k=None,
                    max_new_tokens=limit,
                    eos_token_id=[end, pad],
                    pad_token_id=pad,
                )
            for row, i in enumerate(chosen):
                new = made[row, width:].tolist()
                cut = next((at for at, token in enumerate(new) if token in (end, pad)), len(new))
                out[i] = tokenizer.decode(new[:cut], skip_special_tokens=False)
        return out

    return generate


def load(folder: Path) -> tuple[Any, Any]:
    """Load a model folder with transformers, in bf16.

    Args:
        folder: The model's folder.

    Returns:
        The model and its ``tokenizers.Tokenizer``.
    """
    import torch
    from transformers import LlamaForCausalLM

    from llmlab.zoo.training import tokenizer as tokenizers_

    model = LlamaForCausalLM.from_pretrained(str(folder), dtype=torch.bfloat16)
    return model.eval(), tokenizers_.load(folder)


def table(scores: dict[str, Score]) -> str:
    """Write scores as a Markdown table.

    Args:
        scores: The scores.

    Returns:
        The table, with the targets if there are any.
    """
    rows = ["| skill | criterion | n | correct | target |", "| --- | --- | ---: | ---: | ---: |"]
    for skill, got in scores.items():
        bar = f"{BARS[skill]:.0f} %" if skill in BARS else ""
        rows.append(f"| {skill} | {MEASURES[skill]} | {got.total} | {got.percent:.1f} % | {bar} |")
    return "\n".join(rows)


def brief(scores: dict[str, Score]) -> str:
    """Write scores on one line.

    Args:
        scores: The scores.

    Returns:
        The line, for logs.
    """
    return "  ".join(f"{skill} {got.percent:.0f}" for skill, got in scores.items())
