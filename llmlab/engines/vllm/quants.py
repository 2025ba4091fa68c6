"""Which quants vLLM runs on which hardware.

Sources: vLLM 0.32's kernels (vllm/model_executor/kernels/linear, vllm/config/quantization.py) and what loads on a
CPU without AMX, where it was tried.
"""

from __future__ import annotations

from llmlab.machine.hardware import Hardware

_NO_VLLM_METAL = "vLLM has no build for Apple GPUs"
_CPU_NO = {
    "fp8_per_tensor": "vLLM's CPU build lacks the operation that scales by tensor (static_scaled_fp8_quant)",
    "fp8_per_block": "vLLM's CPU kernel for it needs AMX (Sapphire Rapids or newer)",
    "mxfp8": "vLLM's CPU build has no kernel for it",
    "mxfp4": "vLLM's CPU build has no kernel for dense layers in it",
}
_CPU_YES = {
    "fp8": "a checkpoint, or online (fp8_per_channel)",
    "int8": "a checkpoint, or made at first use; online (int8_per_channel_weight_only) for the experts of mixtures",
    "awq": "a checkpoint; x86 needs AVX-512",
    "gptq": "a checkpoint; x86 needs AVX-512",
    "fp16": "computed as bf16, unless -x dtype=float16",
    "fp32": "computed as bf16, unless -x dtype=float32",
}
# vLLM's build for CPUs without AVX-512 leaves out csrc/cpu/cpu_wna16.cpp: such a model loads, and every request fails.
_AVX512 = {"awq", "gptq"}
_CUDA_YES = {
    "fp8": "from compute capability 8.9; older GPUs, from 7.5, through Marlin with 16-bit activations",
    "fp8_per_tensor": "from compute capability 8.9; older GPUs, from 7.5, through Marlin with 16-bit activations",
    "fp8_per_block": "from compute capability 8.9",
    "int8": "from compute capability 7.5",
    "awq": "from compute capability 7.5",
    "gptq": "from compute capability 7.5",
    "mxfp8": "from compute capability 10.0; older ones through Marlin",
    "mxfp4": "from compute capability 8.0",
    "bf16": "from compute capability 8.0",
}


def runs(tag: str, hardware: Hardware, *, avx512: bool) -> tuple[bool, str]:
    """Whether it runs a tag, and why not or what there is to know. See `Engine.runs`."""
    if hardware == "Metal":
        return False, _NO_VLLM_METAL
    if hardware == "CPU" and tag in _CPU_NO:
        return False, _CPU_NO[tag]
    if hardware == "CPU" and tag in _AVX512 and not avx512:
        return False, "vLLM's CPU build has no 4-bit kernel for x86 CPUs without AVX-512, as this one"
    return True, (_CPU_YES if hardware == "CPU" else _CUDA_YES).get(tag, "")
