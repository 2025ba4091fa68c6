"""The way through Ray Data, as a plan: there is no cluster with GPUs here that could run it."""

from types import SimpleNamespace

import pytest

from llmlab.engines.base import LoadPlan
from llmlab.errors import BadInputError
from llmlab.files.source import Source
from llmlab.jobs import raydata
from llmlab.jobs.models import Subject
from llmlab.jobs.workers import Task
from llmlab.types import Message
from llmlab.types.parallel import Parallel


def subject(tmp_path, kind="safetensors", tp=1):
    source = Source("m", "m", kind, tmp_path, "bf16")
    return Subject("m", {}, {"model": "m"}, plan=LoadPlan(source, 4096, parallel=Parallel(tensor=tp)))


@pytest.mark.parametrize(
    ("kind", "options", "gpus", "adapters", "through"),
    [
        ("safetensors", {"temperature": 0, "max_tokens": 8, "seed": 0}, 4, False, True),
        ("safetensors", {"temperature": 0}, 0, False, False),  # no GPU
        ("gguf", {"temperature": 0}, 4, False, False),
        ("safetensors", {"schema": {}}, 4, False, False),  # llmlab's own engine enforces schemas
        ("safetensors", {"think": True}, 4, False, False),
        ("safetensors", {}, 4, True, False),
    ],
)
def test_which_jobs_go_through_ray_data(tmp_path, kind, options, gpus, adapters, through):
    assert raydata.suits(subject(tmp_path, kind), options, gpus=gpus, adapters=adapters) is through


def test_the_plan_fills_the_cluster(tmp_path):
    plan = raydata.plan_of(subject(tmp_path, tp=2), gpus=8, workers=None)
    assert plan.concurrency == 4
    config = plan.config()
    assert config["engine_kwargs"]["tensor_parallel_size"] == 2
    assert config["model_source"] == str(tmp_path)
    with pytest.raises(BadInputError, match="need 10; the cluster has 8"):
        raydata.plan_of(subject(tmp_path, tp=2), gpus=8, workers=5)


def test_ray_data_takes_the_plan(tmp_path):
    llm = pytest.importorskip("ray.data.llm", reason="ray isn't installed: pip install 'llmlab[ray]'")
    config = llm.vLLMEngineProcessorConfig(**raydata.plan_of(subject(tmp_path), gpus=1, workers=None).config())
    assert config.should_continue_on_error
    assert config.engine_kwargs["max_model_len"] == 4096


def test_a_request_has_the_token_ids_of_a_local_run(vllm):
    encode = raydata.encoder(str(vllm.path))
    task = Task(3, (Message("user", "Who are you?"),), {"temperature": 0, "seed": 5, "stop": ("x",), "system": "Hi"})
    found = raydata.request_of(task, encode)
    read = vllm.stream("Who are you?", system="Hi").reading()
    assert found["tokenized_prompt"] == list(read.ids)
    assert found["sampling_params"] == {"temperature": 0, "seed": 5, "stop": ["x"], "max_tokens": 512}
    assert raydata.request_of(Task(0, "Who", {"raw": True}), encode)["tokenized_prompt"] == vllm.tokenize("Who")


def test_answers_become_rows_and_errors_stay_with_theirs():
    rows = [SimpleNamespace(index=i, error="" if i else "no row") for i in range(2)]
    put = []
    job = SimpleNamespace(task=lambda row: Task(row.index, "x", {}), put=lambda row, answer: put.append((row, answer)))
    requests, waiting = raydata.prepared(rows, job, lambda _: [1, 2])
    assert [one["row"] for one in requests] == [1] == list(waiting)
    assert put[0][1]["error"] == "no row"
    answer = {"generated_text": "hi", "num_generated_tokens": 4, "num_input_tokens": 2, "max_tokens": 4}
    assert raydata.record_of(answer)["finish_reason"] == "length"
    assert raydata.record_of({"row": 1, "__inference_error__": "too long"})["error"] == "too long"
