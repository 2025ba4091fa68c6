"""Each change to vLLM still has its place in vLLM's code, and is still needed."""

import importlib
import importlib.util
import inspect
import re
import sys

import pytest

from llmlab.engines.vllm import load, logs, lora, patches
from llmlab.engines.vllm.load import environment


@pytest.fixture(scope="module", autouse=True)
def imported():
    with logs.environment(environment(in_process=True)):
        load.import_vllm()


def _overridden(cls):
    """The methods that a class replaces, looked up on its base."""
    base = cls.__mro__[1]
    own = [name for name, value in vars(cls).items() if inspect.isfunction(value)]
    return {name: hasattr(base, name) for name in own}


def test_every_change_is_in_the_list():
    listed = set(re.findall(r"^\| `([\w.]+)` \|", patches.__doc__, re.MULTILINE))
    made = {name for name, value in vars(patches).items() if inspect.isfunction(value) and not name.startswith("_")}
    helpers = {"contextmanager", "expand"}
    assert listed == (made - helpers) | {"NotebookWorker", "llmlab.engines.vllm.lora"}


def test_the_search_for_kernels_fails_at_a_dict_that_is_none(monkeypatch):
    from vllm.triton_utils import dispatcher

    class Made:
        """As llvmlite's library: any attribute, `__dict__` included, is made up."""

        def __getattribute__(self, name):
            return object()

    with pytest.raises(AttributeError):
        vars(Made()).get("kernel")
    assert "vars(value).get(" in inspect.getsource(dispatcher)
    monkeypatch.delattr(dispatcher, "vars", raising=False)
    patches.scan_safely()
    assert dispatcher.vars(Made()) == {}


def test_kernels_are_overridden_once(monkeypatch):
    from vllm.platforms.cpu import CpuPlatform
    from vllm.triton_utils import dispatcher

    patches.override_once()
    wrapped = dispatcher.register_kernels
    patches.override_once()
    assert dispatcher.register_kernels is wrapped
    searches = []
    monkeypatch.setattr(dispatcher, "_rebind_kernels", searches.append)
    monkeypatch.setattr(dispatcher, "_registry", {})
    name, own = "vllm.v1.sample.rejection_sampler.expand_kernel", lambda: None
    monkeypatch.setattr(name, dispatcher._resolve_kernel(name)[0].expand_kernel)  # restored at the end
    for _ in range(2):
        wrapped({name: own})
    assert len(searches) == 1
    wrapped.__wrapped__({name: own})  # vLLM's own searches again
    assert len(searches) == 2
    assert "register_kernels(" in inspect.getsource(CpuPlatform.register_triton_kernel_overrides)


def test_an_interrupted_override_is_made_again(monkeypatch):
    from vllm.triton_utils import dispatcher

    def interrupted(_overrides):
        raise KeyboardInterrupt

    patches.override_once()
    monkeypatch.setattr(dispatcher, "_rebind_kernels", interrupted)
    monkeypatch.setattr(dispatcher, "_registry", {})
    with pytest.raises(KeyboardInterrupt):
        dispatcher.register_kernels({"vllm.v1.sample.rejection_sampler.expand_kernel": lambda: None})
    assert not dispatcher._registry


def test_garbage_is_collected_once_per_load_and_unload():
    from vllm.distributed import parallel_state
    from vllm.model_executor.model_loader import base_loader
    from vllm.utils import gc_utils
    from vllm.v1.worker import gpu_model_runner

    patches.collect_less()
    for module in (base_loader, gpu_model_runner, parallel_state):
        used = set(re.findall(r"(?<!\w)gc\.(\w+)", inspect.getsource(module)))
        assert "collect" in used
        assert used <= set(vars(module.gc))
    assert re.findall(r"gc\.\w+", inspect.getsource(gc_utils.freeze_gc_heap))[-2:] == ["gc.collect", "gc.freeze"]


def test_vllm_asks_torch_for_amx():
    import torch
    from vllm.v1.attention.backends import cpu_attn

    patches.no_amx()
    assert "torch.cpu._is_amx_tile_supported()" in inspect.getsource(cpu_attn._get_attn_isa)
    assert cpu_attn._get_attn_isa(torch.bfloat16, 32) != "amx"


def test_fp8_products_run_without_onednn(monkeypatch):
    import torch
    from vllm.model_executor.kernels.linear.scaled_mm.pytorch import ChannelWiseTorchFP8ScaledMMLinearKernel as Kernel

    seen = []

    def product(*_args, **_options):
        seen.append(torch._C._get_mkldnn_enabled())
        raise StopIteration

    monkeypatch.setattr(torch, "_scaled_mm", product)
    rows, columns = torch.zeros(2, 8), torch.zeros(8, 4)
    scales = {"As": torch.ones(2, 1), "Bs": torch.ones(4, 1)}
    shared = {"A": rows, "B": columns, "out_dtype": torch.bfloat16, "bias": None, "output_shape": [2, 4], **scales}
    wrapped = Kernel.apply_scaled_mm
    patches.fp8_without_onednn()
    assert Kernel.apply_scaled_mm is wrapped  # once
    for apply in (wrapped, wrapped.__wrapped__):
        with pytest.raises(StopIteration):
            apply(None, **shared)
    assert seen == [False, True]
    assert torch._C._get_mkldnn_enabled()


def test_the_rank_op_would_be_compiled():
    from vllm.platforms import current_platform
    from vllm.v1.sample.ops import logprobs

    assert "backend=current_platform.simple_compile_backend" in inspect.getsource(logprobs)
    assert current_platform.simple_compile_backend == "inductor"


def test_the_registry_would_start_a_python():
    from vllm.model_executor.models import ModelRegistry, registry

    assert "_run_in_subprocess(" in inspect.getsource(registry._LazyRegisteredModel)
    patches.inspect_in_process("LlamaForCausalLM")
    assert isinstance(ModelRegistry.models["LlamaForCausalLM"], registry._RegisteredModel)


def test_nans_are_counted_by_the_core_and_told_to_nobody():
    from vllm.outputs import RequestOutput
    from vllm.v1.engine import EngineCoreOutput
    from vllm.v1.engine.core_client import SyncMPClient

    assert "num_nans_in_logits" in EngineCoreOutput.__struct_fields__
    assert callable(SyncMPClient.get_output)
    assert "num_nans_in_logits" not in inspect.signature(RequestOutput).parameters


def test_the_cpu_build_expands_wrongly():
    import torch
    from vllm.utils import cpu_triton_utils
    from vllm.v1.sample import rejection_sampler

    patches.patch_expand_batch()
    x, ends = torch.tensor([0.5, 2.0]), torch.tensor([2, 3], dtype=torch.int32)
    assert rejection_sampler.expand_batch_to_tokens(x, ends, 3).tolist() == [0.5, 0.5, 2.0]
    assert rejection_sampler.expand_batch_to_tokens(x, ends, 3, 2, 7).tolist() == [0.5, 0.5, 7.0]
    output = torch.full((3,), -1.0)
    cpu_triton_utils._expand_kernel_impl(output, x, ends, 0, 0)
    assert output.tolist() != [0.5, 0.5, 2.0]


def test_the_runner_has_what_is_wrapped():
    from vllm.v1.sample.sampler import Sampler
    from vllm.v1.worker.cpu_model_runner import CPUModelRunner

    for name in ("propose_draft_token_ids", "execute_model", "sample_tokens", "_get_prompt_logprobs_dict"):
        assert callable(getattr(CPUModelRunner, name))
    assert "sampler.gather_logprobs(" in inspect.getsource(CPUModelRunner._get_prompt_logprobs_dict)
    assert callable(Sampler.gather_logprobs)


def test_a_core_destroys_the_groups_at_its_end():
    from vllm.v1.engine.core import EngineCore

    source = re.sub("#.*", "", inspect.getsource(EngineCore.shutdown))
    lines = source.split('local resources")')[1]
    calls = re.findall(r"([\w.]+)\(\)", lines)
    assert calls == [
        "self.structured_output_manager.clear_backend", "self.model_executor.shutdown", "self.scheduler.shutdown",
        "gc.unfreeze", "cleanup_dist_env_and_memory",
    ]  # fmt: skip


def test_a_core_that_is_dropped_in_its_load_ends_itself():
    from vllm.v1.engine import core
    from vllm.v1.engine.core_client import InprocClient

    assert "weakref.finalize(self, self.engine_core.shutdown)" in inspect.getsource(InprocClient.__init__)
    patches.keep_groups()
    assert core.cleanup_dist_env_and_memory() is None


def test_the_worker_moves_memory_and_replaces_a_function_of_torch():
    worker = patches.NotebookWorker
    base = worker.__mro__[1]
    found = _overridden(worker)
    assert {name for name, there in found.items() if not there} == {
        "_note_not_finite", "_note_guided", "_kv_cache_bytes",
    }  # fmt: skip
    assert "numa_node" in inspect.getsource(base.__init__)
    assert "torch.set_num_threads = " in inspect.getsource(base)


def test_a_token_without_an_adapter_gets_the_last_one():
    import torch
    from vllm.lora.ops.torch_ops import lora_ops

    output = torch.zeros(1, 1)
    lora_ops.bgmv_shrink(torch.ones(1, 2), torch.ones(1, 1, 2), output, torch.tensor([-1]))
    assert output.item() == 2.0  # 0 once vLLM leaves such tokens alone
    assert set(_overridden(lora.grouped()).values()) == {True}
    manager = lora.manager()
    assert set(_overridden(manager._manager_cls).values()) == {True}
    assert hasattr(manager.__mro__[1], "_manager_cls")


# vLLM's modules, a name that each imports from an image processor for torchvision, and where that is.
VISION = {
    "llava": ("PixtralHFEncoderInfo", "pixtral"),
    "gemma3_mm": ("Gemma3ImageProcessor", "gemma3"),
    "qwen2_vl": ("smart_resize", "qwen2_vl"),
}


@pytest.mark.parametrize("name", VISION)
def test_vision_models_are_imported_without_torchvision(name):
    imported, family = VISION[name]
    patches.images_without_torchvision()
    module = importlib.import_module(f"vllm.model_executor.models.{name}")
    assert getattr(module, imported)
    if importlib.util.find_spec("torchvision") is None:
        twin = importlib.import_module(f"transformers.models.{family}.image_processing_pil_{family}")
        stands_in = importlib.import_module(f"transformers.models.{family}.image_processing_{family}")
        own = [key for key, value in vars(twin).items() if getattr(value, "__module__", "") == twin.__name__]
        assert own
        for key in own:
            assert getattr(stands_in, key.removesuffix("Pil")) is getattr(twin, key)


def test_other_modules_are_left_alone():
    finder = patches._ForPIL()
    for name in ("transformers.models.auto.image_processing_auto", "transformers.models.gemma3.modeling_gemma3",
                 "transformers.models.gemma3.image_processing_other", "image_processing_gemma3"):  # fmt: skip
        assert finder.find_spec(name, None) is None
    patches.images_without_torchvision()
    patches.images_without_torchvision()
    assert sum(isinstance(one, patches._ForPIL) for one in sys.meta_path) <= 1
