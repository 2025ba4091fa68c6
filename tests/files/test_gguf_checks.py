"""GGUF files over which llama.cpp ends its process: each is a LoadError, and this process lives on.

The loads run in the test process itself: a fault here ends the whole test run.
"""

import math
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from llmlab import zoo
from llmlab.engines.llamacpp import trial
from llmlab.errors import BadInputError, LoadError
from llmlab.files.headers import read_header
from llmlab.quant.gguf_cache import to_gguf
from tests.files import gguf_edit
from tests.files.gguf_edit import edited, f32, text, texts, u32

SIZES = {"I8": (24, 1), "I16": (25, 2), "I32": (26, 4), "I64": (27, 8), "F64": (28, 8), "F16": (1, 2), "newer": (42, 4)}


@pytest.fixture(scope="module")
def nano():
    return to_gguf(zoo.path("nano"))


def key(name, value):
    return lambda keys, _tensors: keys.update({name: value})


def stored_as(name, kind):
    def change(_keys, tensors):
        shape, _, _ = tensors[name]
        number, size = SIZES[kind]
        tensors[name] = shape, number, bytes(size * math.prod(shape))

    return change


def last_token(token):
    def change(keys, _tensors):
        _, body = keys["tokenizer.ggml.tokens"]
        found, at = [], 12
        while at < len(body):
            (size,) = struct.unpack_from("<Q", body, at)
            found.append(body[at + 8 : at + 8 + size])
            at += 8 + size
        keys["tokenizer.ggml.tokens"] = texts([*found[:-1], token if isinstance(token, bytes) else found[token]])

    return change


RMS = "llama.attention.layer_norm_rms_epsilon"
# As public bug reports and fuzzing had them: a change of nano's F16 file, and what the message says.
CHANGES = {
    "epsilon NaN": (key(RMS, f32(math.nan)), "epsilon is NaN"),
    "epsilon -1": (key(RMS, f32(-1)), "epsilon is -1.0"),
    "epsilon -inf": (key(RMS, f32(-math.inf)), "epsilon is -inf"),
    "frequency base inf": (key("llama.rope.freq_base", f32(math.inf)), "freq_base is inf"),
    "two equal tokens": (last_token(5), "more than once"),
    "a token of 3,000 bytes": (last_token(b"x" * 3000), "token of 3,000 bytes"),
    "experts used, none there": (key("llama.expert_used_count", u32(3)), "expert_used_count is 3"),
    "513 experts": (key("llama.expert_count", u32(513)), "expert_count is 513"),
    "groups without experts": (key("llama.expert_group_count", u32(2)), "expert_group_count is 2"),
    "no tokenizer": (key("tokenizer.ggml.model", text("none")), "no tokenizer"),
    "4 billion layers": (key("llama.block_count", u32(2**32 - 1)), "block_count is 4,294,967,295"),
    "alignment 1": (key("general.alignment", u32(1)), "general.alignment is 1;"),
    "alignment 16": (key("general.alignment", u32(16)), "general.alignment is 16;"),
    "more drafting layers": (key("llama.nextn_predict_layers", u32(7)), "nextn_predict_layers is 7"),
    "heads that don't divide": (key("llama.attention.head_count_kv", u32(3)), "key-value heads"),
    "names as heads": (key("llama.attention.head_count_kv", texts([b"a", b"b"])), "must be an integer"),
    "a number as tokens": (key("tokenizer.ggml.tokens", u32(7)), "not a list of strings"),
    "a number as template": (key("tokenizer.chat_template", u32(7)), "must be a string"),
    "layers as a number with a point": (key("llama.block_count", f32(6.5)), "must be an integer"),
    **{
        f"{name} as {kind}": (stored_as(name, kind), f"'{name}' is stored as")
        for name, kinds in {
            "output_norm.weight": ("I8", "I16", "I32", "I64", "F64", "F16", "newer"),
            "blk.1.attn_output.weight": ("I8", "I16", "I32", "I64", "F64"),
            "token_embd.weight": ("I32",),
        }.items()
        for kind in kinds
    },
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_would_end_the_kernel_is_a_load_error(nano, tmp_path, lab, name):
    change, says = CHANGES[name]
    file = edited(nano, tmp_path / "changed.gguf", change)
    with pytest.raises(LoadError, match=says):
        lab.load(file)
    assert not lab.models


def test_an_unchanged_copy_loads(nano, tmp_path, lab):
    file = edited(nano, tmp_path / "copy.gguf", lambda _keys, _tensors: None)
    same = lab.load(file).generate("Once upon a time", temperature=0, max_tokens=8).text
    assert same == lab.load(nano).generate("Once upon a time", temperature=0, max_tokens=8).text


# What no header check of llmlab's looks at, and llama.cpp ends its process over: the trial run finds it.
UNFORESEEN = {
    "an unknown rope scaling": (key("llama.rope.scaling.type", text("foo")), r"llama-model\.cpp:\d+: GGML_ASSERT"),
    "no BOS for its tokenizer": (key("tokenizer.ggml.model", text("gemma4")), r"llama-vocab\.cpp:\d+: GGML_ASSERT"),
    "another tokenizer's vocabulary": (key("tokenizer.ggml.model", text("llama")), "makes llama.cpp abort"),
}


@pytest.mark.parametrize("name", UNFORESEEN)
def test_the_trial_run_dies_in_our_place(nano, tmp_path, lab, name):
    change, says = UNFORESEEN[name]
    file = edited(nano, tmp_path / "changed.gguf", change)
    read_header(file)
    for _ in range(2):  # a failure isn't remembered as a success
        with pytest.raises(LoadError, match=says) as caught:
            lab.load(file)
    assert "check_file=false" in caught.value.hint


def quiet_log():
    class Log:
        said = ""

        def write(self, said):
            self.said += said

    return Log()


def test_a_file_that_passed_is_not_tried_again(nano, tmp_path, monkeypatch):
    file = edited(nano, tmp_path / "copy.gguf", lambda _keys, _tensors: None)
    runs = []
    real = trial._run
    monkeypatch.setattr(trial, "_run", lambda *given: runs.append(1) or real(*given))
    for _ in range(2):
        trial.check_file(file, quiet_log(), threading.Event())
    assert len(runs) == 1
    file.write_bytes(file.read_bytes() + bytes(32))
    trial.check_file(file, quiet_log(), threading.Event())
    assert len(runs) == 2


def test_what_llmlab_made_is_not_tried(nano, lab, monkeypatch):
    monkeypatch.setattr(trial, "_run", lambda *_: pytest.fail("tried"))
    lab.load("nano", engine="llamacpp")
    lab.load(nano)


def test_check_file_false_leaves_it_out(nano, tmp_path, lab, monkeypatch):
    monkeypatch.setattr(trial, "_run", lambda *_: pytest.fail("tried"))
    file = edited(nano, tmp_path / "copy.gguf", lambda _keys, _tensors: None)
    lab.load(file, extra={"check_file": False})
    with pytest.raises(BadInputError, match="true or false"):
        lab.load(file, extra={"check_file": "perhaps"})


def test_the_trial_run_reads_no_weights(nano, tmp_path):
    """A file of 5 GB, nearly all of it a hole: a run that read the weights would take 5 GB of memory."""
    keys, tensors = gguf_edit.read(nano)
    wide = 2**20
    keys["llama.feed_forward_length"] = u32(wide)
    for name, (shape, kind, data) in tensors.items():
        if ".ffn_" in name and "norm" not in name:
            grown = tuple(wide if size == 768 else size for size in shape)
            tensors[name] = grown, kind, 2 * math.prod(grown)
        else:
            tensors[name] = shape, kind, len(data)
    file = gguf_edit.write(tmp_path / "large.gguf", keys, tensors, size=5 * 2**30)
    assert read_header(file).weight_bytes > 5e9 / 2
    # In a process of its own: the peak of this one's children includes those of earlier tests.
    script = (
        "import pathlib, resource, sys, threading\n"
        "from llmlab.engines.llamacpp import trial\n"
        "print(*trial._run(pathlib.Path(sys.argv[1]), threading.Event()))\n"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    ran = subprocess.run([sys.executable, "-c", script, str(file)], capture_output=True, text=True, check=True)
    *said, peak = ran.stdout.split("\n")[:-1]
    assert said[0].split()[0] == "0", said
    assert int(peak) < 2 * 2**20


def test_an_interrupt_ends_the_trial_run(nano):
    cancelled = threading.Event()
    cancelled.set()
    with pytest.raises(KeyboardInterrupt):
        trial._run(nano, cancelled)


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")
def test_the_trial_run_ends_with_its_parent(tmp_path):
    """The parent is killed while its child waits: the child follows."""
    code = (
        "import subprocess, sys, time\n"
        "from pathlib import Path\n"
        "import llmlab.engines.llamacpp.trial as check\n"
        f"worker = Path({str(tmp_path / 'worker.py')!r})\n"
        "text = check._WORKER.read_text().split('if __name__')[0]\n"
        "worker.write_text(text + 'import time\\n_end_with_parent(int(sys.argv[1]), 60)\\n"
        "print(os.getpid(), flush=True)\\ntime.sleep(60)\\n')\n"
        "import os\n"
        "subprocess.Popen([sys.executable, '-I', '-S', str(worker), str(os.getpid())])\n"
        "time.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    # The pipe ends when the last process that holds it does.
    assert parent.stdout.read() == ""
    parent.stdout.close()
    for _ in range(6000):
        if not Path(f"/proc/{child}").exists():
            break
        time.sleep(0.01)
    assert not Path(f"/proc/{child}").exists()
