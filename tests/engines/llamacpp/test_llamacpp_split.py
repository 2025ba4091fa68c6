"""What splits a model over GPUs and servers: checked, and refused by name where the build can't do it."""

import ctypes
from dataclasses import replace

import llama_cpp
import pytest

from llmlab.engines.base import LoadPlan
from llmlab.engines.llamacpp.options import LlamaCppOptions, check_extra, split_shares
from llmlab.errors import BadInputError, UnknownNameError, UnsupportedError


@pytest.mark.parametrize("text", ["", "a,b", "-1,2", "0,0", "nan,1", "inf"])
def test_shares_are_numbers(text):
    with pytest.raises(BadInputError, match="tensor_split"):
        split_shares(text)


@pytest.mark.skipif(llama_cpp.llama_supports_gpu_offload(), reason="a GPU build splits")
@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        ({"split_mode": "row"}, "supports the CPU only"),
        ({"tensor_split": "3,1"}, "supports the CPU only"),
        ({"rpc": "127.0.0.1:50052"}, "RPC backend|rpc-server"),
    ],
)
def test_a_cpu_build_refuses_before_anything_is_loaded(lab, extra, expected):
    with pytest.raises(UnsupportedError, match=expected):
        lab.load("nano", engine="llamacpp", extra=extra)
    assert not lab.models


def test_an_unknown_way_to_split_is_refused():
    with pytest.raises(UnknownNameError, match="tensor"):
        check_extra({"split_mode": "tensor"})


def test_a_gpu_build_gets_the_shares(llamacpp, monkeypatch):
    monkeypatch.setattr(llama_cpp, "llama_supports_gpu_offload", lambda: True)
    plan: LoadPlan = llamacpp.plan
    params = LlamaCppOptions.of(replace(plan, extra={"split_mode": "row", "tensor_split": "3,1"})).model_params()
    assert params.split_mode == llama_cpp.LLAMA_SPLIT_MODE_ROW
    shares = ctypes.cast(params.tensor_split, ctypes.POINTER(ctypes.c_float))
    assert [shares[i] for i in range(3)] == [3.0, 1.0, 0.0]
    with pytest.raises(BadInputError, match="Leave one out"):
        LlamaCppOptions.of(replace(plan, extra={"tensor_split": "3,1", "gpu": 0}))
