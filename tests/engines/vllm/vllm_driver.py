"""A small driver of the engine, below Model."""

import threading
from dataclasses import dataclass
from pathlib import Path

from llmlab.engines.base import Request
from llmlab.engines.stream import Buffer
from llmlab.types import SamplingParams

WAIT_S = 120
NANO = Path(__file__).parents[3] / "llmlab" / "zoo" / "models" / "nano"


@dataclass
class Asked:
    """A request that was handed to the engine, and where its answer comes."""

    request: Request
    buffer: Buffer

    def done(self):
        """Wait for the end; the choice."""
        assert self.buffer.wait_done(WAIT_S), "the request did not end"
        if self.buffer.error is not None:
            raise self.buffer.error
        logprobs = self.request.params.logprobs is not None
        return self.buffer.choices(logprobs=logprobs, seeds=[self.request.params.seed])[0]

    @property
    def cached(self):
        return self.buffer.usage(len(self.request.prompt_ids)).cached_tokens


def ask(engine, prompt, **options):
    """Submit a prompt (a user's text, or token ids), greedy unless told."""
    ids = engine.tokenize(f"<|user|>{prompt}<|end|><|assistant|>") if isinstance(prompt, str) else prompt
    given = {"temperature": 0.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0, "max_tokens": 24, "seed": 1, **options}
    buffer = Buffer(1)
    request = Request("test", tuple(ids), SamplingParams(**given), buffer)
    buffer.start()
    engine.submit(request)
    return Asked(request, buffer)


def scheduler(engine):
    """vLLM's own scheduler, to see what it still holds."""
    return engine._loop.loaded.llm.engine_core.engine_core.scheduler


def engine_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("llmlab-vllm")]
