"""A loaded model as lm-eval's `TemplateLM`. It imports lm-eval: load it with `_imports.load`."""

from __future__ import annotations

import collections
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import lm_eval.models.utils as helpers
from lm_eval import utils
from lm_eval.api.model import TemplateLM

from llmlab import _imports
from llmlab.errors import BadInputError, UnsupportedError
from llmlab.inference.stream import CANCEL_WAIT_S

if TYPE_CHECKING:
    from llmlab.inference.stream import Stream
    from llmlab.model import Model

# Requests in flight: enough for any engine's batch.
_IN_FLIGHT = 64
# Of a task's generation_kwargs; what else transformers' `generate` takes is refused by name.
_SAMPLING = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "typical_p")
_DEFAULT_TOKENS = 256  # lm-eval's own, of its hf and vllm models


class HarnessModel(TemplateLM):  # type: ignore[misc]
    """A model and an adapter, as lm-eval asks them: log-likelihoods of continuations, and greedy texts.

    Tokens are the model's own; BOS is put before a text where the model's tokenizer does.

    Args:
        model: the model.
        adapter: the adapter of every request; None: the base model.
        report: called with the number of requests that are done, after each.
    """

    def __init__(self, model: Model, adapter: str | None, report: Callable[[int], None]) -> None:
        super().__init__()
        self._model, self._adapter, self._report = model, adapter, report
        self._done = 0
        special = model.facts.special_tokens
        self._bos_text = special.get("bos_token", "")
        self._bos, self._eos = self._single(self._bos_text), self._single(special.get("eos_token", ""))
        self._add_bos = model.facts.add_bos and self._bos is not None

    def _single(self, text: str) -> int | None:
        if not text or self._model.facts.server_side:
            return None
        ids = self._model.tokenize(text)
        return ids[0] if len(ids) == 1 else None

    # -- tokens --------------------------------------------------------------------------------

    @property
    def eot_token_id(self) -> int:
        """The end-of-text token."""
        ends = self._model.facts.end_ids
        if self._eos is None and not ends:
            raise UnsupportedError(f"{self._model.name} has no end-of-text token, which an empty context needs.")
        return self._eos if self._eos is not None else ends[0]

    @property
    def prefix_token_id(self) -> int:
        """What stands for an empty context: BOS, or the end-of-text token."""
        return self._bos if self._bos is not None else self.eot_token_id

    @property
    def max_length(self) -> int:
        """The context length."""
        return self._model.facts.context_length

    @property
    def tokenizer_name(self) -> str:
        """For lm-eval's request cache."""
        return f"llmlab-{self._model.source.spec}".replace("/", "__")

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """Token ids of a text; BOS before it as the model's tokenizer does, unless the text has it."""
        ids = self._model.tokenize(string)
        begun = add_special_tokens is None and bool(ids) and ids[0] == self._bos
        if self._add_bos and add_special_tokens is not False and not begun:
            assert self._bos is not None
            return [self._bos, *ids]
        return ids

    def apply_chat_template(self, chat_history: Sequence[Mapping[str, str]], add_generation_prompt: bool = True) -> str:
        """Render a conversation; without `add_generation_prompt`, its last message is an answer that was begun."""
        turns: list[Any] = [dict(turn) for turn in chat_history]
        begun = "" if add_generation_prompt else str(turns.pop()["content"])
        return self._model.render(turns) + begun

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """The model's chat template."""
        return (self._model.facts.chat_template or "") if chat_template else None

    # -- likelihood ----------------------------------------------------------------------------

    def loglikelihood(self, requests: Any, disable_tqdm: bool = True) -> list[tuple[float, bool]]:  # noqa: ARG002
        """Log-likelihoods of continuations, without lm-eval's progress bar."""
        found: list[tuple[float, bool]] = super().loglikelihood(requests, disable_tqdm=True)
        return found

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[Any, list[int], list[int]]], **_: Any
    ) -> list[tuple[float, bool]]:
        """The sum of the continuation's log probabilities, and whether greedy decoding gives it."""
        _imports.load("numpy")
        import numpy as np

        found: list[tuple[float, bool] | None] = [None] * len(requests)
        # Continuations that differ only in their last token share one pass.
        groups: dict[tuple[int, ...], list[int]] = collections.defaultdict(list)
        for place, (_text, context, continuation) in enumerate(requests):
            groups[(len(continuation), *context, *continuation[:-1])].append(place)
        texts, firsts = [], []
        for places in groups.values():
            _text, context, continuation = requests[places[0]]
            ids = [*context, *continuation][-self.max_length :]
            first = len(ids) - len(continuation) - 1
            if first < 0:
                raise BadInputError(
                    f"A continuation of {len(continuation)} tokens doesn't fit the context of {self.max_length}.",
                    "Load the model with a larger --ctx.",
                )
            texts.append(ids)
            firsts.append(first)
        scored = self._model.score_many(texts, first=firsts, adapter=self._adapter)
        for places, rows in zip(groups.values(), scored, strict=True):
            for place in places:
                tokens = np.asarray(requests[place][2])
                chosen = rows[np.arange(len(tokens)), tokens]
                greedy = bool((rows.argmax(axis=1) == tokens).all())
                found[place] = float(chosen.astype(np.float64).sum()), greedy
            self._count(len(places))
        return [one for one in found if one is not None]

    def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = True) -> list[float]:  # noqa: ARG002
        """The log-likelihood of whole texts, in windows of the context length, each token once."""
        pairs, owners = [], []
        for place, request in enumerate(requests):
            windows = utils.get_rolling_token_windows(
                token_list=self.tok_encode(request.args[0]),
                prefix_token=self.prefix_token_id,
                # A window and the token before it fill the context.
                max_seq_len=self.max_length - 1,
                context_len=1,
            )
            own = [(None, *utils.make_disjoint_window(window)) for window in windows]
            pairs += own
            owners += [place] * len(own)
        totals = [0.0] * len(requests)
        before = self._done
        for place, (score, _) in zip(owners, self._loglikelihood_tokens(pairs), strict=True):
            totals[place] += score
        self._done = before
        self._count(len(requests))
        return totals

    # -- generation ----------------------------------------------------------------------------

    def generate_until(self, requests: Any, disable_tqdm: bool = True) -> list[str]:  # noqa: ARG002
        """The texts up to a stop string; many at once, so that the engine batches them."""
        texts: list[str] = []
        waiting: collections.deque[tuple[Stream, list[str]]] = collections.deque()
        try:
            for request in requests:
                waiting.append(self._started(*request.args))
                if len(waiting) >= _IN_FLIGHT:
                    texts.append(self._finished(*waiting.popleft()))
            while waiting:
                texts.append(self._finished(*waiting.popleft()))
        except BaseException:
            for stream, _ in waiting:
                stream.cancel(wait_s=0)
            for stream, _ in waiting:
                stream.wait(CANCEL_WAIT_S)
            raise
        return texts

    def _started(self, context: str, given: Mapping[str, Any]) -> tuple[Stream, list[str]]:
        options = dict(helpers.normalize_gen_kwargs(dict(given), _DEFAULT_TOKENS))
        until = helpers.handle_stop_sequences(options.pop("until", None), eos=None)
        most = int(options.pop("max_gen_toks"))
        sampled = options.pop("do_sample", False)
        params: dict[str, Any] = {"max_tokens": most, "temperature": 0.0}
        unknown = [name for name in options if name not in _SAMPLING]
        if unknown:
            raise UnsupportedError(
                f"The task asks for {unknown[0]}={options[unknown[0]]!r}, which llmlab doesn't take.",
                f"Of generation_kwargs it takes until, max_gen_toks, do_sample, {', '.join(_SAMPLING)}.",
            )
        if sampled:
            params |= {name: value for name, value in options.items() if value is not None}
        elif options.get("repetition_penalty"):
            params["repetition_penalty"] = options["repetition_penalty"]
        prompt: Any = context
        if not self._model.facts.server_side:
            room = self.max_length - most
            if room <= 0:
                raise BadInputError(
                    f"The task generates up to {most} tokens, and the context has {self.max_length}.",
                    "Load the model with a larger --ctx.",
                )
            prompt = self.tok_encode(context)[-room:]
            params["adapter"] = self._adapter
        stream = self._model.stream(prompt, raw=True, stop=[one for one in until if one], **params)
        stream.start()
        return stream, until

    def _finished(self, stream: Stream, until: list[str]) -> str:
        text = stream.result().text
        self._count(1)
        return str(helpers.postprocess_generated_text(generation=text, stop=until, think_end_token=None))

    def _count(self, requests: int) -> None:
        self._done += requests
        self._report(self._done)
