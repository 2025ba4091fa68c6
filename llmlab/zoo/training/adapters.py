# ruff: noqa: T201 - a command line prints.
"""Trains the adapters included with nano, with `llmlab.training.run`: `python -m llmlab.zoo adapters`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llmlab.zoo import adapter_path, path
from llmlab.zoo.training import adapters_data, evaluation

BASE = "nano"
# Differences from the tuner's defaults.
SETTINGS: dict[str, Any] = {"rank": 8, "epochs": 1, "batch_size": 16, "lr": 3e-3, "seed": 0, "threads": 1}
# Queries differ more from nano's training data than its facts in another style.
EPOCHS = {"sql": 3}


def make(name: str, out: Path | None = None, *, n: int = 200) -> dict[str, str]:
    """Train one of the included adapters and score it on its held-out split.

    Args:
        name: One of ``adapters_data.NAMES``.
        out: The folder; default: its folder in the package.
        n: Number of held-out examples to score.

    Returns:
        The scores, as on its card.
    """
    from llmlab.training import card, run

    def say(progress: Any) -> None:
        if progress.curve and progress.curve[-1].heldout is not None:
            print(f"{name} {progress.step}/{progress.steps} held-out loss {progress.curve[-1].heldout:.4f}", flush=True)

    tuned = run.tune(
        path(BASE),
        adapters_data.training(name),
        name=name,
        base_name=BASE,
        out=out or adapter_path(name),
        settings=run.TrainingSettings(**{**SETTINGS, "epochs": EPOCHS.get(name, SETTINGS["epochs"])}),
        progress=say,
    )
    scores = score(name, tuned.path, n=n)
    card.write(tuned.path, tuned, scores, licence="apache-2.0")
    print(tuned, scores, flush=True)
    return scores


def score(name: str, folder: Path, *, n: int = 200, seed: int = 0) -> dict[str, str]:
    """Score an adapter, and nano without it, on the adapter's held-out split, with greedy decoding.

    Args:
        name: One of ``adapters_data.NAMES``.
        folder: The PEFT folder.
        n: Number of examples.
        seed: The seed.

    Returns:
        Percentages by description.
    """
    import peft

    model, tokenizer = evaluation.load(path(BASE))
    examples = adapters_data.heldout(name, n, seed)

    def say(with_model: Any, at_most: int) -> list[str]:
        generate = evaluation.transformers_generate(with_model, tokenizer, limit=60)
        some = examples[:at_most]
        return generate([e.messages for e in some], [None] * len(some))

    def percent(hits: list[bool]) -> str:
        return f"{100 * sum(hits) / len(hits):.1f} % of {len(hits)}"

    alone = say(model, 100)
    said = say(peft.PeftModel.from_pretrained(model, str(folder)).eval(), n)
    return {
        "held-out answers in its manner": percent([adapters_data.in_manner(name, one) for one in said]),
        "held-out answers exactly right": percent(
            [one.strip() == e.answer for one, e in zip(said, examples, strict=True)]
        ),
        "nano alone, in that manner": percent([adapters_data.in_manner(name, one) for one in alone]),
    }
