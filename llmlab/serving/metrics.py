"""Counters for `/metrics`, in Prometheus' text format."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

if TYPE_CHECKING:
    from llmlab.session import Lab
    from llmlab.types import Completion

_TTFT_S = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """What the server has done, and what its models do now.

    Args:
        lab: whose models are counted.
    """

    def __init__(self, lab: Lab) -> None:
        # A registry of its own: vLLM fills the process's.
        self._registry = registry = CollectorRegistry()
        self._lab = lab
        self._requests = Counter(
            "llmlab_requests", "Requests that ended", ("model", "route", "finish_reason"), registry=registry
        )
        self._prompt = Counter("llmlab_prompt_tokens", "Prompt tokens", ("model",), registry=registry)
        self._cached = Counter(
            "llmlab_cached_tokens", "Prompt tokens reused from the KV cache", ("model",), registry=registry
        )
        self._generated = Counter("llmlab_generation_tokens", "Generated tokens", ("model",), registry=registry)
        self._ttft = Histogram(
            "llmlab_time_to_first_token_seconds",
            "Seconds to the first token",
            ("model",),
            buckets=_TTFT_S,
            registry=registry,
        )
        self._running = Gauge(
            "llmlab_requests_running", "Unfinished requests, cells and widgets included", ("model",), registry=registry
        )
        self._errors = Counter("llmlab_errors", "Requests that were refused or failed", ("status",), registry=registry)

    def add(self, completion: Completion, route: str) -> None:
        """Count a completion."""
        model, usage = completion.model, completion.usage
        self._requests.labels(model, route, completion.finish_reason).inc()
        self._prompt.labels(model).inc(usage.prompt_tokens)
        self._cached.labels(model).inc(usage.cached_tokens)
        self._generated.labels(model).inc(usage.completion_tokens)
        if completion.timings.ttft_s is not None and not completion.timings.replayed:
            self._ttft.labels(model).observe(completion.timings.ttft_s)

    def error(self, status: int) -> None:
        """Count an error response."""
        self._errors.labels(str(status)).inc()

    def text(self) -> bytes:
        """All values."""
        self._running.clear()
        for model in self._lab.models.values():
            self._running.labels(model.name).set(model.in_flight)
        return generate_latest(self._registry)
