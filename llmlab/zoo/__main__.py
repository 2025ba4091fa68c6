# ruff: noqa: T201 - a command line prints
"""Command line of the zoo: ``python -m llmlab.zoo train | tokenizer | evaluate | sample | adapters``."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from llmlab.zoo import path
from llmlab.zoo.training.model import CONFIGS

SEES = "nano-sees"


def _weights(text: str) -> dict[str, float]:
    from llmlab.zoo.training.corpus import WEIGHTS

    changes = {key: float(value) for key, value in (item.split("=") for item in text.split(",") if item)}
    return {**WEIGHTS, **changes}


def _train_sees(options: argparse.Namespace) -> None:
    from llmlab.zoo.training.seeing import SeeingSettings, train

    out = Path(options.out) if options.out else path(SEES)
    settings = SeeingSettings(
        seed=options.seed,
        threads=options.threads,
        work=Path(options.work),
        out=out,
        save_minutes=options.save_minutes,
    )
    figures = train(settings, lambda line: print(line, flush=True))
    (out / "training.json").write_text(json.dumps(figures, indent=2) + "\n", "utf-8")


def _train(options: argparse.Namespace) -> None:
    if options.name == SEES:
        _train_sees(options)
        return
    from llmlab.zoo.training import evaluation, exporter
    from llmlab.zoo.training.pretraining import PretrainingSettings, train

    config = CONFIGS[options.name]
    out = Path(options.out) if options.out else path(options.name)
    settings = PretrainingSettings(
        name=options.name,
        minutes=options.minutes,
        seed=options.seed,
        threads=options.threads,
        work=Path(options.work),
        out=out,
        evaluate_minutes=options.evaluate_minutes,
        save_minutes=options.save_minutes,
    )

    def glance(net: Any, tokenizer: Any) -> str:
        import torch
        from transformers import LlamaConfig, LlamaForCausalLM

        model = LlamaForCausalLM(LlamaConfig(**exporter.configs(config)[0])).to(torch.bfloat16)
        model.load_state_dict({**net.state_dict(), "lm_head.weight": net.state_dict()["model.embed_tokens.weight"]})
        begun = time.monotonic()
        generate = evaluation.transformers_generate(model.eval(), tokenizer)
        scores = evaluation.score(generate, n=options.evaluate_n, seed=99)
        lines = [f"   {skill}: {wrong}" for skill, got in scores.items() for wrong in got.failures[:2]]
        return "\n".join([f"EVAL {evaluation.brief(scores)}  ({time.monotonic() - begun:.0f} s)", *lines])

    def log(line: str) -> None:
        print(line, flush=True)

    figures = train(settings, _weights(options.weights), glance, log)
    text = json.dumps(figures, indent=2)
    log(text)
    (out / "training.json").write_text(text + "\n", "utf-8")


def _tokenizer(options: argparse.Namespace) -> None:
    from llmlab.zoo.training import tokenizer

    tokenizer.save(tokenizer.train(), Path(options.out))


def _report(
    options: argparse.Namespace,
    folder: Path,
    table: str,
    scores: Mapping[str, Any],
    card: Callable[[dict[str, Any]], str],
) -> None:
    """Print the scores, and some of the wrong answers, and write the model card, as the options say."""
    print(table)
    if options.failures:
        for skill, got in scores.items():
            for wrong in got.failures:
                print(skill, *map(repr, wrong), sep="\n    ")
    if options.card:
        noted = folder / "training.json"
        figures = json.loads(noted.read_text("utf-8")) if noted.exists() else {}
        (folder / "README.md").write_text(card(figures), "utf-8")


def _evaluate_sees(options: argparse.Namespace) -> None:
    from llmlab.zoo.training import seeing_evaluation as seen

    folder = Path(options.path) if options.path else path(SEES)
    scores = seen.score(seen.transformers_answer(folder), n=options.n, seed=options.seed)
    _report(options, folder, seen.table(scores), scores, lambda figures: seen.card(scores, figures))


def _evaluate(options: argparse.Namespace) -> None:
    if options.name == SEES:
        _evaluate_sees(options)
        return
    from llmlab.zoo.training import evaluation, model_card

    folder = Path(options.path) if options.path else path(options.name)
    model, tokenizer = evaluation.load(folder)
    scores = evaluation.score(evaluation.transformers_generate(model, tokenizer), n=options.n, seed=options.seed)
    _report(
        options,
        folder,
        evaluation.table(scores),
        scores,
        lambda figures: model_card.card(options.name, scores, figures),
    )


def _adapters(options: argparse.Namespace) -> None:
    from llmlab.zoo.training import adapters, adapters_data

    for name in options.only.split(",") if options.only else adapters_data.NAMES:
        adapters.make(name, Path(options.out) / name if options.out else None, n=options.n)


def _sample(options: argparse.Namespace) -> None:
    from llmlab.zoo.training import corpus, evaluation
    from llmlab.zoo.training.example import user
    from llmlab.zoo.training.template import render

    if not options.prompt:
        for dialog in islice(corpus.training_dialogs(options.seed), options.n):
            print(render(dialog.messages, dialog.tools), end="\n\n")
        return
    model, tokenizer = evaluation.load(path(options.name))
    system = [{"role": "system", "content": options.system}] if options.system else []
    print(evaluation.transformers_generate(model, tokenizer)([[*system, user(options.prompt)]], [None])[0])


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m llmlab.zoo", description="The models included in llmlab.")
    commands = parser.add_subparsers(dest="command", required=True)

    def command(name: str, run: Any, help_: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=help_)
        made.set_defaults(run=run)
        made.add_argument(
            "--name", default="nano", choices=[*CONFIGS, SEES] if run in (_train, _evaluate) else list(CONFIGS)
        )
        made.add_argument("--seed", type=int, default=0)
        return made

    made = command("train", _train, "train a model on the synthetic corpus")
    made.add_argument("--minutes", type=float, default=45.0, help="the budget; nano-sees has a number of steps instead")
    made.add_argument("--threads", type=int, default=2)
    made.add_argument("--work", default="build/zoo", help="folder of the checkpoint; an existing run is resumed")
    made.add_argument("--out", default="", help="folder of the finished model; default: its folder in the package")
    made.add_argument("--weights", default="", help="changes to the mix, such as extract=30,story=2")
    made.add_argument("--save-minutes", type=float, default=5.0)
    made.add_argument("--evaluate-minutes", type=float, default=10.0)
    made.add_argument("--evaluate-n", type=int, default=50)
    made = command("tokenizer", _tokenizer, "train the tokenizer")
    made.add_argument("--out", required=True)
    made = command("evaluate", _evaluate, "score a model on the held-out splits")
    made.add_argument("--path", default="", help="a model folder instead of an included model")
    made.add_argument("-n", type=int, default=200)
    made.add_argument("--failures", action="store_true", help="show the first wrong answers of each skill")
    made.add_argument("--card", action="store_true", help="write the model card into the model's folder")
    made = command("sample", _sample, "show dialogs of the corpus, or answer a prompt")
    made.add_argument("-n", type=int, default=10)
    made.add_argument("--prompt", default="")
    made.add_argument("--system", default="")
    made = command("adapters", _adapters, "train and score the adapters included with nano")
    made.add_argument("--only", default="", help="only these, such as pirate,sql")
    made.add_argument("--out", default="", help="folder for them; default: their folder in the package")
    made.add_argument("-n", type=int, default=200, help="held-out examples to score")
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
