"""Jobs on Ray where vLLM runs on GPUs: through Ray Data's own LLM support, which places and feeds the engines.

Rows are read and written by llmlab, as elsewhere, and prompts are tokenized here with the model's own template.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llmlab import _imports
from llmlab.errors import BadInputError, LlmLabError
from llmlab.inference.request import conversation
from llmlab.jobs.workers import failed_record

if TYPE_CHECKING:
    from llmlab.jobs.execution import Run
    from llmlab.jobs.models import Subject
    from llmlab.jobs.rows import Row
    from llmlab.jobs.workers import Task
    from llmlab.types import Message

    Encode = Callable[[str | Sequence[Message]], list[int]]

SEGMENT_ROWS = 20_000
"""Rows per data set of Ray's: the engines are loaded again for each, and a crash repeats at most one."""
_BATCH = 64
_MAX_TOKENS = 512
# What a request may set here; constraints, adapters and thoughts need llmlab's own engine, and run on actors.
_SAMPLING = frozenset({
    "temperature", "top_p", "top_k", "min_p", "seed", "max_tokens", "stop", "ignore_eos", "repetition_penalty",
    "presence_penalty", "frequency_penalty", "min_tokens", "stop_token_ids",
})  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """What Ray Data is given.

    Attributes:
        model: the folder or repository that vLLM loads.
        concurrency: replicas of the engine.
        engine: vLLM's engine arguments.
        batch: rows per batch.
    """

    model: str
    concurrency: int
    engine: Mapping[str, Any]
    batch: int = _BATCH

    def config(self) -> dict[str, Any]:
        """The arguments of `ray.data.llm.vLLMEngineProcessorConfig`.

        Example:
            >>> Plan("/models/nano", 2, {"max_model_len": 2048}).config()["concurrency"]
            2
        """
        return {
            "model_source": self.model,
            "concurrency": self.concurrency,
            "batch_size": self.batch,
            "engine_kwargs": dict(self.engine),
            # Prompts come as token ids, those of a local run.
            "chat_template_stage": False,
            "tokenize_stage": False,
            "detokenize_stage": False,
            "should_continue_on_error": True,
        }


def suits(subject: Subject, options: Mapping[str, Any], *, gpus: int, adapters: bool) -> bool:
    """Whether a job runs through Ray Data: on GPUs, in vLLM, with sampling params only.

    Args:
        subject: the model.
        options: the options of every request.
        gpus: the cluster's GPUs.
        adapters: rows have adapters.
    """
    plan = subject.plan
    folder = plan is not None and plan.source.format == "safetensors" and not plan.source.online
    return bool(gpus) and folder and not adapters and set(options) <= {*_SAMPLING, "system", "raw"}


def plan_of(subject: Subject, *, gpus: int, workers: int | None) -> Plan:
    """The plan for a model on a cluster.

    Args:
        subject: the model; its load plan says how many GPUs an engine takes.
        gpus: the cluster's GPUs.
        workers: replicas; None: as many as the GPUs allow.

    Raises:
        BadInputError: the GPUs are too few.
    """
    plan = subject.plan
    assert plan is not None
    each = plan.parallel.per_copy
    count = workers or gpus // each
    if count < 1 or count * each > gpus:
        raise BadInputError(
            f"{max(count, 1)} engines on {each} GPUs each need {max(count, 1) * each}; the cluster has {gpus}.",
            "Lower workers=, or add nodes.",
        )
    engine = {
        "max_model_len": plan.context_length,
        "tensor_parallel_size": plan.parallel.tensor,
        "pipeline_parallel_size": plan.parallel.pipeline,
        "max_num_seqs": max(plan.max_concurrency, _BATCH),
        "enable_prefix_caching": True,
    }
    return Plan(str(plan.source.path), count, engine)


def encoder(folder: str) -> Encode:
    """How a model's own tokenizer and chat template read a conversation, or a text without a template."""
    _imports.load("transformers:AutoTokenizer")
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)

    def encode(prompt: str | Sequence[Message]) -> list[int]:
        if isinstance(prompt, str):
            return list(tokenizer(prompt)["input_ids"])
        turns = [turn.as_dict() for turn in prompt]
        text = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])

    return encode


def request_of(task: Task, encode: Encode) -> dict[str, Any]:
    """A row for Ray Data: its place, the prompt's token ids and vLLM's sampling params.

    Raises:
        LlmLabError: the prompt is invalid.
    """
    options = dict(task.options)
    system, raw = options.pop("system", None), options.pop("raw", False)
    prompt = task.prompt if isinstance(task.prompt, str) else list(task.prompt)
    ids = encode(str(prompt) if raw else conversation(prompt, system))
    params = {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in options.items()
        if value is not None and name in _SAMPLING
    }
    params.setdefault("max_tokens", _MAX_TOKENS)
    return {
        "row": task.index,
        "prompt": "",
        "tokenized_prompt": ids,
        "sampling_params": params,
        "max_tokens": params["max_tokens"],
    }


def record_of(answer: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of an answer of Ray Data's."""
    problem = answer.get("__inference_error__")
    if problem:
        return failed_record(str(problem))
    tokens = int(answer["num_generated_tokens"])
    return {
        "text": answer["generated_text"],
        "parsed": None,
        "reasoning": "",
        "finish_reason": "length" if tokens >= answer["max_tokens"] else "stop",
        "prompt_tokens": int(answer["num_input_tokens"]),
        "tokens": tokens,
        "error": "",
    }


@dataclass(frozen=True)
class Through:
    """A job's way through Ray Data. Not run in llmlab's tests, which have no cluster with GPUs: only planned."""

    plan: Plan

    def run(self, job: Run) -> None:
        """Answer rows segment by segment."""
        import ray
        from ray.data.llm import build_processor, vLLMEngineProcessorConfig

        encode = encoder(self.plan.model)
        processor = build_processor(vLLMEngineProcessorConfig(**self.plan.config()), preprocess=dict, postprocess=_kept)
        while segment := list(itertools.islice(job.rows, SEGMENT_ROWS)):
            requests, open_rows = prepared(segment, job, encode)
            for answer in processor(ray.data.from_items(requests)).iter_rows() if requests else ():
                job.put(open_rows.pop(answer["row"]), record_of(answer))
            for row in open_rows.values():
                job.put(row, failed_record("Ray Data returned no answer."))
            job.writer.flush()


def prepared(segment: Sequence[Row], job: Run, encode: Encode) -> tuple[list[dict[str, Any]], dict[int, Row]]:
    """(the requests, their rows) of a segment; a row that can't be asked is finished with its error."""
    requests, open_rows = [], {}
    for row in segment:
        try:
            if row.error:
                raise LlmLabError(row.error)
            requests.append(request_of(job.task(row), encode))
            open_rows[row.index] = row
        except LlmLabError as error:
            job.put(row, failed_record(str(error)))
    return requests, open_rows


def _kept(row: dict[str, Any]) -> dict[str, Any]:
    names = ("row", "generated_text", "num_generated_tokens", "num_input_tokens", "max_tokens")
    return {name: row.get(name) for name in names}
