"""Trains nano-sees on generated pictures: the same steps give the same model on one thread; resumable."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from llmlab.zoo.training import pictures, seeing_exporter, seeing_model
from llmlab.zoo.training import tokenizer as tokenizers_
from llmlab.zoo.training.example import Dialog, assistant, roughen, user
from llmlab.zoo.training.pretraining import factor
from llmlab.zoo.training.seeing_model import CONFIG, PLACE
from llmlab.zoo.training.template import END, PAD

_TURNS = 4
_ROW = 288
_BLIND = 0.02
_PATCH_LOSS = 0.3
# Every so many steps, conversations have two pictures.
_PAIRS = 6
_TOKENIZER_DIALOGS = 20_000


@dataclass
class SeeingSettings:
    """Training settings: steps and pictures per step of the encoder alone and of the whole, folders, and intervals."""

    encoder_steps: int = 400
    encoder_batch: int = 128
    steps: int = 2000
    batch: int = 32
    seed: int = 0
    threads: int = 1
    minutes: float = 0.0
    work: Path = Path("build/zoo")
    out: Path | None = None
    save_minutes: float = 3.0
    report_steps: int = 20


def conversation(seed: str, count: int = 1) -> tuple[list[pictures.Scene], list[dict[str, str]]]:
    """A training conversation: four questions about one picture (rarely without it), or two about each of two.

    Args:
        seed: Determines it.
        count: The number of pictures.

    Returns:
        Its scenes in order, and its messages; a message starts with the place of an image where one is shown.
    """
    rng = random.Random(f"{seed} questions")  # noqa: S311
    shown = list(islice(pictures.scenes(seed, held=False), count))
    if count == 1 and rng.random() < _BLIND:
        asked = roughen(rng, pictures.questions(shown[0], 1, rng)[0][0])
        return [], [user(asked), assistant(pictures.BLIND)]
    messages = []
    for scene in shown:
        for turn, (question, answer) in enumerate(pictures.questions(scene, _TURNS // count, rng)):
            messages += [user((PLACE if turn == 0 else "") + roughen(rng, question)), assistant(answer)]
    return shown, messages


def make_tokenizer() -> Any:
    """Train the tokenizer on the questions and answers.

    Returns:
        A ``tokenizers.Tokenizer``; training is deterministic.
    """
    made = (conversation(f"words {number}")[1] for number in range(_TOKENIZER_DIALOGS))
    dialogs = (Dialog("picture", ("picture",), turns) for turns in made)
    return tokenizers_.train(dialogs, vocab=CONFIG.text.vocab, more=(PLACE,))


@dataclass
class Pictures:
    """Pictures as the encoder's input, and the number of the thing and of the colour in each patch, 0 for neither."""

    pixels: Any
    whats: Any
    hues: Any


@dataclass
class Batch:
    """Token ids (rows, length), where they stand for images, the scored flat positions, and the pictures."""

    ids: Any
    places: Any
    index: Any
    shown: Pictures


def batch(tokenizer: Any, seeds: Sequence[str], count: int = 1) -> Batch:
    """Build a batch of conversations, padded on the right.

    Args:
        tokenizer: A ``tokenizers.Tokenizer``.
        seeds: One seed per conversation.
        count: Pictures per conversation.

    Returns:
        The batch.
    """
    import torch

    from llmlab.zoo.training.packing import scored_positions
    from llmlab.zoo.training.template import render

    place = tokenizer.token_to_id(PLACE)
    asks, end = tokenizer.token_to_id("<|assistant|>"), tokenizer.token_to_id(END)
    made = [conversation(seed, count) for seed in seeds]
    texts = [render(messages).replace(PLACE, PLACE * CONFIG.tokens) for _, messages in made]
    rows = [encoded.ids[:_ROW] for encoded in tokenizer.encode_batch(texts, add_special_tokens=False)]
    width = max(len(row) for row in rows)
    ids = torch.full((len(rows), width), tokenizer.token_to_id(PAD))
    scored = torch.zeros((len(rows), width), dtype=torch.bool)
    for number, row in enumerate(rows):
        ids[number, : len(row)] = torch.tensor(row)
        scored[number, : len(row)] = torch.tensor(scored_positions(row, asks, end))
    scored[:, -1] = False
    shown = labelled([scene for scenes, _ in made for scene in scenes])
    return Batch(ids, ids == place, scored.flatten().nonzero().squeeze(1), shown)


def labelled(scenes: Sequence[pictures.Scene]) -> Pictures:
    """Draw scenes, and label their patches.

    Args:
        scenes: The scenes.

    Returns:
        The tensors.
    """
    import torch

    labels = [patches(scene) for scene in scenes]
    drawn = seeing_model.pixels([pictures.draw(scene) for scene in scenes])
    return Pictures(drawn, torch.tensor([what for what, _ in labels]), torch.tensor([hue for _, hue in labels]))


def patches(scene: pictures.Scene) -> tuple[list[int], list[int]]:
    """What is in each patch of a picture, row by row: the thing's number and its colour's, 0 for neither.

    Args:
        scene: The scene.
    """
    side, size = CONFIG.image // CONFIG.patch, CONFIG.patch
    whats, hues = [0] * side**2, [0] * side**2
    for thing in scene.things:
        reach = thing.size * (0.3 if thing.is_digit else 0.42), thing.size * 0.42
        for at in range(side**2):
            middle = (at % side + 0.5) * size, (at // side + 0.5) * size
            if all(
                abs(one - centre) < far + size * 0.25
                for one, centre, far in zip(middle, (thing.x, thing.y), reach, strict=True)
            ):
                whats[at] = 1 + pictures.THINGS.index(thing.what)
                hues[at] = 1 + list(pictures.COLOURS).index(thing.colour)
    return whats, hues


def _patch_loss(guesses: Any, shown: Pictures) -> Any:
    from torch.nn import functional as fn

    whats, hues = guesses.float().flatten(0, 1).split((seeing_model.WHATS, seeing_model.HUES), 1)
    return fn.cross_entropy(whats, shown.whats.flatten()) + fn.cross_entropy(hues, shown.hues.flatten())


def _encoder_step(net: Any, shown: Pictures) -> tuple[float, float]:
    """Add the gradient of the patches' labels; returns their loss as the second number."""
    import torch

    with torch.autocast("cpu", torch.bfloat16):
        guesses = net.guess(shown.pixels)
    loss = _patch_loss(guesses, shown)
    loss.backward()
    return 0.0, loss.item()


def _step(net: Any, made: Batch) -> tuple[float, float]:
    """Add the gradient of a batch; returns the loss of the answers and of the patches."""
    import torch
    from torch.nn import functional as fn

    with torch.autocast("cpu", torch.bfloat16):
        embeddings, guesses = net.encode(made.shown.pixels)
        logits = net(made.ids, made.places, embeddings, made.index)
    loss = fn.cross_entropy(logits.float(), made.ids.flatten()[made.index + 1])
    seen = _patch_loss(guesses, made.shown)
    (loss + _PATCH_LOSS * seen).backward()
    return loss.item(), seen.item()


def train(settings: SeeingSettings, log: Callable[[str], None] = print) -> dict[str, float]:
    """Train for a number of steps; resumes from the checkpoint in ``settings.work`` if there is one.

    Args:
        settings: The settings; with ``minutes``, this call stops after that time and the next one goes on.
        log: Receives each log line.

    Returns:
        Figures of the run: steps, pictures, minutes, losses, parameters.
    """
    from concurrent.futures import ThreadPoolExecutor

    import torch

    from llmlab.zoo.training.optim import Optimiser

    torch.set_num_threads(settings.threads)
    torch.set_float32_matmul_precision("medium")
    settings.work.mkdir(parents=True, exist_ok=True)
    if not (settings.work / "tokenizer.json").exists():
        tokenizers_.save(make_tokenizer(), settings.work, seeing_exporter.TEMPLATE)
    tokenizer = tokenizers_.load(settings.work)
    net = seeing_model.build(seed=settings.seed)
    first, total = settings.encoder_steps, settings.encoder_steps + settings.steps
    checkpoint = settings.work / "nano-sees.pt"
    saved = torch.load(checkpoint, weights_only=True) if checkpoint.exists() else None
    steps, used, shown = (saved[name] for name in ("steps", "seconds", "pictures")) if saved else (0, 0.0, 0)
    optimiser = Optimiser(net.seeing() if steps < first else net)
    average = {name: value.detach().clone() for name, value in net.named_parameters()}
    if saved:
        net.load_state_dict(saved["net"])
        if steps != first:  # there, the whole network begins with an optimizer of its own
            optimiser.restore(saved["optimiser"])
        average = saved["average"]
        log(f"resumed at step {steps}, {used / 60:.1f} min")
    parameters = sum(p.numel() for name, p in net.named_parameters() if not name.startswith("patch_head"))

    def save() -> None:
        state = {"net": net.state_dict(), "optimiser": optimiser.state(), "average": average}
        state |= {"steps": steps, "seconds": used, "pictures": shown}
        torch.save(state, checkpoint.with_suffix(".tmp"))
        checkpoint.with_suffix(".tmp").replace(checkpoint)
        if settings.out and steps > first:
            seeing_exporter.export(average, tokenizer, settings.out)

    losses: list[tuple[float, float]] = []
    last = begun = stored = time.monotonic()
    with ThreadPoolExecutor(1) as pool:
        while steps < total:
            if steps < first:
                seed = f"{settings.seed} encoder {steps}"
                seen = labelled(list(islice(pictures.scenes(seed, held=False), settings.encoder_batch)))
                losses.append(_encoder_step(net, seen))
                rate = max(factor(steps / first), 0.1)
            else:
                if steps == first:
                    optimiser = Optimiser(net)
                count = 2 if steps % _PAIRS == 0 else 1
                seeds = [f"{settings.seed} {steps} {row}" for row in range(settings.batch // count)]
                made = batch(tokenizer, seeds, count)
                seen = made.shown
                losses.append(_step(net, made))
                rate = factor((steps - first) / settings.steps)
            optimiser.step(pool, rate)
            steps, shown = steps + 1, shown + len(seen.pixels)
            # An average over about the last 200 steps.
            keep = min(0.99, 1 - 1 / ((steps % (first or total)) / 8 + 1))
            with torch.no_grad():
                for name, value in net.named_parameters():
                    average[name].lerp_(value, 1 - keep)
            now = time.monotonic()
            used, last = used + now - last, now
            if steps % settings.report_steps == 0:
                recent = [sum(part) / len(part) for part in zip(*losses[-settings.report_steps :], strict=True)]
                log(f"{used / 60:6.1f} min  step {steps}  loss {recent[0]:.4f}  patches {recent[1]:.4f}")
            if now - stored > settings.save_minutes * 60:
                save()
                stored = now
            if settings.minutes and now - begun > settings.minutes * 60:
                break
    save()
    recent = [sum(part) / len(part) for part in zip(*losses[-100:], strict=True)] if losses else [0.0, 0.0]
    return {
        "parameters": parameters,
        "steps": steps,
        "pictures": shown,
        "minutes": used / 60,
        "loss": recent[0],
        "patch_loss": recent[1],
    }
