"""An experiment, recorded, and replayed in a process that has neither an engine nor the weights."""

import json
import subprocess
import sys

import llmlab
from tests.experiments.conftest import COUNTRIES, SHORT

SCRIPT = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("llama_cpp", "vllm", "torch", "transformers", "tokenizers"):
            raise ImportError(name)
sys.meta_path.insert(0, Blocked())
import json, llmlab
from llmlab import zoo
from llmlab.files import headers
def unread(*_args, **_more):
    raise AssertionError("a replay reads no weights")
headers.read_header = unread
from tests.experiments.test_replayed import declared
with llmlab.replay_answers(sys.argv[1]):
    exp = declared().run()
print(json.dumps([exp.computed, *(exp.frame[name].tolist() for name in ("text", "perplexity", "error"))]))
"""


def declared():
    """Two quants with and without an adapter."""
    return llmlab.experiment(
        "replayed",
        prompts=["What is the capital of {{country}}?"],
        data=COUNTRIES,
        models=["nano"],
        engines=["llamacpp"],
        quants=["F16", "Q4_K_M"],
        adapters=["none", "pirate:0.5"],
        params=SHORT,
        scorers=["contains", "perplexity"],
    )


def test_it_needs_no_engine_and_no_weights(data, monkeypatch):
    path = data / "answers.jsonl"
    with llmlab.record_answers(path):
        exp = declared().run()
    # The adapter that answered also scores.
    values = exp.frame.groupby("adapter")["perplexity"].mean()
    assert values["pirate:0.5"] != values["none"]
    monkeypatch.setenv("LLMLAB_DATA", str(data / "elsewhere"))
    ran = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(path)], capture_output=True, text=True, timeout=120, check=False
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    computed, texts, perplexities, errors = json.loads(ran.stdout.splitlines()[-1])
    assert computed == len(exp.frame) == 16
    assert texts == exp.frame["text"].tolist()
    assert perplexities == exp.frame["perplexity"].tolist()
    assert set(errors) == {""}
