"""Scores nano-sees on held-out pictures, in any engine, and writes its card."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from llmlab.statistics import share
from llmlab.zoo.training import pictures
from llmlab.zoo.training.evaluation import Score
from llmlab.zoo.training.seeing_model import CONFIG

# Takes questions about pictures; returns the answers, decoded greedily.
Answer = Callable[[Sequence[pictures.Asked]], list[str]]

_EXAMPLES = {
    "describe": "A red circle at the top left and a blue 7 on the right.",
    "colour": "Red.",
    "shape": "A circle.",
    "digit": "7.",
    "position": "At the top left.",
    "count": "Two.",
    "yes or no": "Yes.",
}

_CARD = """\
---
license: apache-2.0
language: en
library_name: transformers
pipeline_tag: image-text-to-text
tags: [llava, tiny, synthetic]
---

# nano-sees

A vision model of the LLaVA architecture with {parameters:,} parameters, for trying out images in llmlab: it answers
questions about generated pictures of 64 x 64 pixels with one to three shapes or digits, and about nothing else. Larger
square pictures of that kind are scaled down.

| | |
| --- | --- |
| architecture | `LlavaForConditionalGeneration` |
| encoder | SigLIP: {layers} layers used (a further one, unused, is zeros), hidden size {hidden}, {heads} heads, \
patches of {patch} x {patch} pixels |
| language model | Llama: {text_layers} layers, hidden size {text_hidden}, {text_heads} heads, {kv_heads} key-value \
heads, tied embeddings |
| tokens of a picture | {tokens} |
| tokenizer | byte-level BPE, GPT-2 split, {vocab} tokens, no BOS |
| weights | bfloat16 safetensors |
| shapes | {shapes}; digits 0 to 9, in the font that comes with Pillow |
| colours | {colours} |

## Scores

Greedy decoding in float32 on held-out pictures: no combination of things, colours and places scored here is in the
training data. An answer counts if all of it is right, to the letter. 95 % intervals: Wilson.

{table}

```
python -m llmlab.zoo evaluate --name nano-sees -n {n}
```

## Training

{training}

```
python -m llmlab.zoo train --name nano-sees --threads 1
```

The encoder first learns to name the thing and the colour in each patch, then everything is trained together on
conversations. Pictures, questions and answers come from a seeded generator (`llmlab/zoo/training/pictures.py`); the
exported weights are a running average.
"""


def score(answer: Answer, kinds: Sequence[str] = pictures.KINDS, n: int = 200, seed: int = 0) -> dict[str, Score]:
    """Score a model on held-out pictures.

    Args:
        answer: Runs the model, with greedy decoding.
        kinds: The kinds of questions.
        n: Number of questions per kind.
        seed: Seeds the choice of pictures.

    Returns:
        The score of each kind.
    """
    out = {}
    for kind in kinds:
        asked = pictures.heldout(kind, n, seed)
        answers = [text.strip() for text in answer(asked)]
        wrong = [(a.question, a.answer, text) for a, text in zip(asked, answers, strict=True) if text != a.answer]
        out[kind] = Score(kind, n - len(wrong), n, tuple(wrong[:5]))
    return out


def model_answer(model: Any) -> Answer:
    """Ask a model loaded in llmlab.

    Args:
        model: The ``Model``.

    Returns:
        A function for `score`.
    """
    from llmlab.types import Message

    def answer(asked: Sequence[pictures.Asked]) -> list[str]:
        prompts = [[Message("user", one.question, images=(pictures.draw(one.scene),))] for one in asked]
        return [done.text for done in model.generate(prompts, temperature=0, max_tokens=48)]

    return answer


def transformers_answer(folder: Path, batch: int = 50) -> Answer:
    """Ask a model folder in transformers, in float32.

    Args:
        folder: The model's folder.
        batch: Batch size.

    Returns:
        A function for `score`.
    """
    import torch
    from transformers import AutoModelForImageTextToText, AutoProcessor

    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    processor = AutoProcessor.from_pretrained(folder)
    processor.tokenizer.padding_side = "left"

    def answer(asked: Sequence[pictures.Asked]) -> list[str]:
        out: list[str] = []
        for start in range(0, len(asked), batch):
            part = asked[start : start + batch]
            parts = [[{"type": "image"}, {"type": "text", "text": one.question}] for one in part]
            texts = [
                processor.apply_chat_template([{"role": "user", "content": one}], add_generation_prompt=True)
                for one in parts
            ]
            shown = [[pictures.draw(one.scene)] for one in part]
            inputs = processor(text=texts, images=shown, return_tensors="pt", padding=True)
            with torch.no_grad():
                made = model.generate(**inputs, do_sample=False, max_new_tokens=48)
            out += processor.batch_decode(made[:, inputs.input_ids.shape[1] :], skip_special_tokens=True)
        return out

    return answer


def table(scores: Mapping[str, Score]) -> str:
    """Write scores as a Markdown table.

    Args:
        scores: The scores.

    Returns:
        The table, with 95 % intervals.
    """
    rows = ["| question | answer, for example | n | correct | 95 % interval |", "| --- | --- | ---: | ---: | ---: |"]
    for kind, got in scores.items():
        found = share(got.right, got.total)
        span = f"{100 * found.low:.1f} to {100 * found.high:.1f} %"
        rows.append(f"| {kind} | {_EXAMPLES[kind]} | {got.total} | {got.percent:.1f} % | {span} |")
    return "\n".join(rows)


def card(scores: Mapping[str, Score], figures: Mapping[str, Any]) -> str:
    """Write the model card.

    Args:
        scores: Its scores.
        figures: The training run's figures, as ``train`` returns them.

    Returns:
        Markdown.
    """
    text = CONFIG.text
    training = (
        f"{figures['pictures']:,.0f} pictures in {figures['steps']:,.0f} steps and {figures['minutes']:.0f} minutes on "
        f"one CPU core that other work shared. {figures.get('note', '')}".strip()
    )
    return _CARD.format(
        parameters=int(figures["parameters"]),
        layers=CONFIG.layers,
        hidden=CONFIG.hidden,
        heads=CONFIG.heads,
        patch=CONFIG.patch,
        text_layers=text.layers,
        text_hidden=text.hidden,
        text_heads=text.heads,
        kv_heads=text.kv_heads,
        tokens=CONFIG.tokens,
        vocab=text.vocab,
        shapes=", ".join(pictures.SHAPES),
        colours=", ".join(pictures.COLOURS),
        table=table(scores),
        n=max(got.total for got in scores.values()),
        training=training,
    )
