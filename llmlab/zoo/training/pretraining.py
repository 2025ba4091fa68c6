"""Trains a zoo model on the synthetic corpus, within a budget of minutes, resumable."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmlab.zoo.training import exporter, packing
from llmlab.zoo.training import tokenizer as tokenizers_
from llmlab.zoo.training.model import CONFIGS, build

WARM_UP = 0.02
DECAY_FROM = 0.35
PART_TOKENS = 1024


@dataclass
class PretrainingSettings:
    """Training settings: the budget, batch size, folders, and intervals."""

    name: str = "nano"
    minutes: float = 45.0
    seed: int = 0
    batch_tokens: int = 5120
    threads: int = 2
    work: Path = Path("build/nano")
    out: Path | None = None
    save_minutes: float = 5.0
    report_minutes: float = 1.0
    evaluate_minutes: float = 10.0


def factor(progress: float) -> float:
    """The learning-rate factor: warm-up, plateau, then linear decay to zero.

    Args:
        progress: The used share of the budget, 0 to 1.

    Returns:
        A factor from 0 to 1.
    """
    if progress < WARM_UP:
        return max(progress / WARM_UP, 0.02)
    if progress < DECAY_FROM:
        return 1.0
    return max((1.0 - progress) / (1.0 - DECAY_FROM), 0.0)


def load_tokenizer(settings: PretrainingSettings) -> Any:
    """Load the tokenizer from the model's folder, or train it.

    Args:
        settings: The settings.

    Returns:
        A ``tokenizers.Tokenizer``; training is deterministic.
    """
    if settings.out and (settings.out / "tokenizer.json").exists():
        return tokenizers_.load(settings.out)
    return tokenizers_.train()


def _gradient(net: Any, batch: packing.Batch, rows: slice, scored: int) -> float:
    """Add the gradient of some of a batch's rows; returns their part of the mean loss."""
    import torch
    from torch.nn import functional as fn

    ids = batch.ids[rows]
    index = batch.scored[rows].flatten().nonzero().squeeze(1)
    with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
        logits = net(ids, index, packing.attention_mask(batch.segments[rows]))
    loss = fn.cross_entropy(logits.float(), ids.flatten()[index + 1], reduction="sum") / scored
    loss.backward()  # type: ignore[no-untyped-call]
    return loss.item()


def _step(net: Any, batch: packing.Batch, pool: Executor) -> float:
    """Compute the gradient of a batch in small parts, distributed over threads.

    If other work slows one thread down, it takes fewer parts. With threads inside each operation instead, all would
    wait for the slowest.
    """
    count, length = batch.ids.shape
    size = max(1, PART_TOKENS // length)
    scored = int(batch.scored.sum())
    jobs = [pool.submit(_gradient, net, batch, slice(at, at + size), scored) for at in range(0, count, size)]
    return sum(job.result() for job in jobs)


def train(
    settings: PretrainingSettings,
    weights: Mapping[str, float] | None = None,
    evaluate: Callable[[Any, Any], str] | None = None,
    log: Callable[[str], None] = print,
) -> dict[str, float]:
    """Train for the budgeted minutes; resumes from the checkpoint in ``settings.work`` if there is one.

    Args:
        settings: The settings.
        weights: Sampling weight of each kind of dialog.
        evaluate: Called periodically with the network and the tokenizer; its result is logged.
        log: Receives each log line.

    Returns:
        Figures of the run: tokens, steps, minutes, tokens per second, loss, parameters.
    """
    import torch

    torch.set_num_threads(1)
    pool = ThreadPoolExecutor(settings.threads, initializer=torch.set_num_threads, initargs=(1,))
    config = CONFIGS[settings.name]
    tokenizer = load_tokenizer(settings)
    net = build(config, settings.seed)
    from llmlab.zoo.training.optim import Optimiser

    optimiser = Optimiser(net)
    average = {name: value.detach().clone() for name, value in net.named_parameters()}
    checkpoint = settings.work / f"{settings.name}.pt"
    steps, tokens, used, part = 0, 0, 0.0, 0
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        net.load_state_dict(saved["net"])
        optimiser.restore(saved["optimiser"])
        average = saved["average"]
        steps, tokens, used, part = saved["steps"], saved["tokens"], saved["seconds"], saved["part"] + 1
        log(f"resumed at step {steps}, {used / 60:.1f} min")
    settings.work.mkdir(parents=True, exist_ok=True)
    parameters = sum(p.numel() for p in net.parameters())
    log(f"{settings.name}: {parameters:,} parameters")

    def save() -> None:
        state = {
            "net": net.state_dict(),
            "optimiser": optimiser.state(),
            "average": average,
            "steps": steps,
            "tokens": tokens,
            "seconds": used,
            "part": part,
        }
        torch.save(state, checkpoint.with_suffix(".tmp"))
        checkpoint.with_suffix(".tmp").replace(checkpoint)
        if settings.out:
            exporter.export(average, config, tokenizer, settings.out)

    # A resumed run uses new dialogs: its part of the stream has its own seed.
    stream = packing.batches(tokenizer, settings.seed * 1000 + 17 + part, settings.batch_tokens, weights)
    budget = settings.minutes * 60
    last = time.monotonic()
    report, stored, scored = used, used, used
    losses: list[float] = []
    counted, since = 0, used
    for batch in stream:
        progress = used / budget
        if progress >= 1.0:
            break
        losses.append(_step(net, batch, pool))
        optimiser.step(pool, factor(progress), momentum=min(0.95, 0.85 + steps / 3000))
        steps, tokens, counted = steps + 1, tokens + batch.tokens, counted + batch.tokens
        keep = min(0.995, 1 - 1 / (steps / 8 + 1))
        with torch.no_grad():
            for name, value in net.named_parameters():
                average[name].lerp_(value, 1 - keep)
        now = time.monotonic()
        used, last = used + now - last, now
        if used - report > settings.report_minutes * 60:
            recent = losses[-100:]
            log(
                f"{used / 60:6.1f} min  step {steps}  {tokens / 1e6:.2f}M tokens  "
                f"loss {sum(recent) / len(recent):.4f}  "
                f"{counted / (used - since):.0f} tok/s  rate {factor(progress):.2f}"
            )
            report, counted, since = used, 0, used
        if used - stored > settings.save_minutes * 60:
            save()
            stored = used
        if evaluate and used - scored > settings.evaluate_minutes * 60:
            current = {name: value.detach().clone() for name, value in net.named_parameters()}
            net.load_state_dict(average)
            torch.set_num_threads(settings.threads)
            log(evaluate(net, tokenizer))
            torch.set_num_threads(1)
            net.load_state_dict(current)
            scored = used
            last = time.monotonic()
    save()
    pool.shutdown()
    final = sum(losses[-100:]) / max(len(losses[-100:]), 1) if losses else math.nan
    return {
        "parameters": parameters,
        "steps": steps,
        "tokens": tokens,
        "minutes": used / 60,
        "tokens_per_second": tokens / max(used, 1e-9),
        "loss": final,
    }
