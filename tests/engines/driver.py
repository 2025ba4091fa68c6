"""A small driver of either engine, below Model."""

from dataclasses import dataclass

from llmlab.engines.base import Request
from llmlab.engines.stream import Buffer
from llmlab.types import SamplingParams

WAIT_S = 120


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

    def wait_tokens(self, count=1):
        """Wait until so many chunks came, or the end."""
        assert self.buffer.wait(count - 1, WAIT_S)

    @property
    def cached(self):
        return self.buffer.usage(len(self.request.prompt_ids)).cached_tokens


def ask(engine, prompt, **options):
    """Submit a prompt (a user's text, or token ids); greedy unless `options` say otherwise."""
    ids = engine.tokenize(f"<|user|>{prompt}<|end|><|assistant|>") if isinstance(prompt, str) else prompt
    given = {"temperature": 0.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0, "max_tokens": 24, "seed": 1, **options}
    buffer = Buffer(1)
    request = Request("test", tuple(ids), SamplingParams(**given), buffer)
    buffer.start()
    engine.submit(request)
    return Asked(request, buffer)
