# ruff: noqa: E501 - a table row is one line
"""The model card of each zoo model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmlab.zoo.training.evaluation import BARS, Score, table
from llmlab.zoo.training.model import CONFIGS

_CARD = """\
---
license: apache-2.0
language: en
library_name: transformers
pipeline_tag: text-generation
tags: [llama, tiny, synthetic]
---

# {name}

{intro}

| | |
| --- | --- |
| architecture | `LlamaForCausalLM`, {layers} layers, hidden size {hidden}, intermediate size {intermediate}, {heads} heads of \
{head_dim}, {kv_heads} key-value heads, tied embeddings |
| context | {context} tokens (longest training row: 1024) |
| tokenizer | byte-level BPE, GPT-2 split, {vocab} tokens, numbers digit by digit, no BOS |
| weights | bfloat16 safetensors |
| chat template | `<\\|system\\|>`, `<\\|user\\|>`, `<\\|assistant\\|>`, `<\\|tool\\|>` turns, each ended by `<\\|end\\|>` |

## Capabilities

Answers questions about a small world of facts (countries, animals, planets, colors, opposites); extracts a record from a
sentence as JSON; classifies sentiment; calls a tool (`calculator`, `get_weather`, `get_time`, `lookup`) with plain JSON
`{{"name": ..., "arguments": {{...}}}}` and answers from its result; follows a system prompt on language or style (French,
German, Spanish, upper or lower case, a single word, polite, JSON, excited); tells short stories; remembers a name, city,
color or pet mentioned earlier.

## Scores

Greedy decoding in bfloat16 on held-out splits: no combination scored here (for instance entity, relation and wording of a
question) is in the training data.

{table}

{verdict}

```
python -m llmlab.zoo evaluate --name {name} -n {n}
```

## Training

{training}

```
python -m llmlab.zoo train --name {name}
```

The corpus comes from a seeded generator (`llmlab/zoo/training/corpus.py`); combinations are held out by a hash of their parts.
Loss on the assistant's turns only; Muon for the hidden matrices, Adam for the rest; the exported weights are a running
average. The budget is in minutes, so the number of tokens depends on the machine.
"""

INTRO = """\
A chat model of the Llama architecture with {parameters:,} parameters, for trying out llmlab: small enough to be
included in a Python package, trained on a synthetic corpus, and good at exactly the few skills listed below. It is not
a general assistant: outside its small world it makes things up."""

DRAFT_INTRO = """\
A draft model with {parameters:,} parameters for speculative decoding with nano: the same tokenizer and the same corpus, a
sixth of the size. It drafts tokens and nano verifies them, so the text is nano's own (`%llm load nano --draft {name}`).
Its own answers, scored below against nano's targets, are worse; what matters for a draft is how often nano accepts."""


def parameters(name: str) -> int:
    """Count a model's parameters from its sizes.

    Args:
        name: The model.

    Returns:
        The count, tied embeddings counted once.
    """
    c = CONFIGS[name]
    attention = 2 * c.hidden * c.head_dim * (c.heads + c.kv_heads)
    layer = attention + 3 * c.hidden * c.intermediate + 2 * c.hidden
    return c.vocab * c.hidden + c.layers * layer + c.hidden


def card(name: str, scores: Mapping[str, Score], figures: Mapping[str, Any]) -> str:
    """Write the model card.

    Args:
        name: The model.
        scores: Its scores on the held-out splits.
        figures: The training run's figures, as ``train`` prints them; may be empty.

    Returns:
        Markdown.
    """
    c = CONFIGS[name]
    short = [
        f"{s} by {BARS[s] - got.percent:.1f} points" for s, got in scores.items() if s in BARS and got.percent < BARS[s]
    ]
    verdict = "All targets are met." if not short else "Below target: " + ", ".join(short) + "."
    training = "Trained on a CPU with two cores."
    if figures:
        training = (
            f"{figures['tokens'] / 1e6:.1f} million tokens in {figures['steps']:,.0f} steps and "
            f"{figures['minutes']:.0f} minutes on two CPU cores ({figures['tokens_per_second']:,.0f} tokens/s)."
        )
    if figures.get("note"):
        training += " " + str(figures["note"])
    intro = DRAFT_INTRO if name.endswith("-draft") else INTRO
    return _CARD.format(
        name=name,
        intro=intro.format(name=name, parameters=parameters(name)),
        parameters=parameters(name),
        layers=c.layers,
        hidden=c.hidden,
        heads=c.heads,
        vocab=c.vocab,
        intermediate=c.intermediate,
        head_dim=c.head_dim,
        kv_heads=c.kv_heads,
        context=c.context,
        table=table(dict(scores)),
        verdict=verdict,
        training=training,
        n=max((got.total for got in scores.values()), default=200),
    )
