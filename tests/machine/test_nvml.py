"""GPUs as NVML reports them, with a described NVML: no test machine has a GPU."""

import sys
from types import SimpleNamespace

import pytest

from llmlab import doctor
from llmlab.machine import hardware, memory, nvml

GIB = 2**30


class Missing(Exception):
    pass


def described(gpus, processes=()):
    """A `pynvml` with these GPUs: (name, free GiB, total GiB), MIG instances as a list of them, None: no memory."""

    def info(handle):
        if handle.memory is None:
            raise Missing
        return SimpleNamespace(free=int(handle.memory[0] * GIB), total=int(handle.memory[1] * GIB))

    def made(gpu, kind, place):
        name, *rest = gpu
        instances = [made(one, "MIG", i) for i, one in enumerate(rest[0])] if isinstance(rest[0], list) else []
        held = None if instances or rest[0] is None else tuple(rest)
        return SimpleNamespace(name=name, memory=held, uuid=f"{kind}-{name}-{place}", instances=instances)

    handles = [made(gpu, "GPU", place) for place, gpu in enumerate(gpus)]

    def instance(handle, place):
        if place >= len(handle.instances):
            raise Missing
        return handle.instances[place]

    return SimpleNamespace(
        NVMLError=Missing,
        nvmlInit=lambda: None,
        nvmlShutdown=lambda: None,
        nvmlDeviceGetCount=lambda: len(handles),
        nvmlDeviceGetHandleByIndex=lambda index: handles[index],
        nvmlDeviceGetMigMode=lambda handle: (int(bool(handle.instances)), 0),
        nvmlDeviceGetMaxMigDeviceCount=lambda handle: 7,
        nvmlDeviceGetMigDeviceHandleByIndex=instance,
        nvmlDeviceGetUUID=lambda handle: handle.uuid,
        nvmlDeviceGetName=lambda handle: handle.name,
        nvmlDeviceGetMemoryInfo=info,
        nvmlDeviceGetComputeRunningProcesses=lambda handle: [
            SimpleNamespace(pid=pid, usedGpuMemory=used) for name, pid, used in processes if name == handle.name
        ],
        nvmlSystemGetDriverVersion=lambda: "550.54",
        nvmlSystemGetCudaDriverVersion=lambda: 12040,
    )


@pytest.fixture
def machine(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def use(*gpus, processes=(), show=None):
        monkeypatch.setitem(sys.modules, "pynvml", described(gpus, processes))
        if show is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", show)

    return use


TWO = (("L4", 22, 24), ("H100", 70, 80))


@pytest.mark.parametrize(
    ("show", "names"),
    [
        (None, ["L4", "H100"]),
        ("1", ["H100"]),
        ("1,0", ["H100", "L4"]),
        ("GPU-H1", ["H100"]),
        ("0,7,1", ["L4"]),  # CUDA stops at the first invalid one
        ("", []),
        ("-1", []),
    ],
)
def test_only_what_cuda_shows_is_counted(machine, show, names):
    machine(*TWO, show=show)
    assert [gpu.name for gpu in nvml.visible()] == names
    assert hardware.nvidia_gpus() == len(names) == len(memory.gpus())
    assert hardware.describe_device() == {0: "no GPU", 1: "1 GPU", 2: "2 GPUs"}[len(names)]


def test_one_of_several_or_all_of_them(machine):
    machine(*TWO)
    assert memory.device(index=1).free == 70 * GIB
    assert memory.device().name == "L4"
    assert memory.device(count=2).free == 92 * GIB
    # In equal parts the smaller one decides.
    assert memory.device(count=2, even=True).free == 44 * GIB
    assert memory.device(gpu=False).name == "CPU"


def test_the_instances_of_a_partitioned_gpu_are_its_gpus(machine):
    machine(("A100", [("1g.10gb", 9, 10), ("2g.20gb", 19, 20)]), ("L4", 22, 24))
    assert [gpu.name for gpu in nvml.visible()] == ["1g.10gb", "2g.20gb", "L4"]
    assert memory.device().total == 10 * GIB


def test_a_gpu_in_the_machines_memory_has_that(machine):
    machine(("GB10", None))
    found = memory.device()
    assert found.name == "GB10"
    assert found.total == memory.cpu().total
    (check,) = [check for check in doctor.examine().checks if check.name == "GPU 0"]
    assert "memory unknown" in check.detail


def test_the_memory_of_processes_is_summed_and_unknown_is_unknown(machine):
    machine(*TWO, processes=[("L4", 7, GIB), ("H100", 7, 2 * GIB), ("H100", 8, 3 * GIB)])
    assert nvml.used_by({7}) == 3 * GIB
    assert nvml.used_by({7, 8}) == 6 * GIB
    assert nvml.used_by({9}) is None
    machine(("L4", 22, 24), processes=[("L4", 7, None)])
    assert nvml.used_by({7}) is None
    machine()
    assert nvml.used_by({7}) is None


def test_no_driver_is_no_gpu(monkeypatch):
    def fails():
        raise OSError("libnvidia-ml.so.1")

    monkeypatch.setitem(sys.modules, "pynvml", SimpleNamespace(nvmlInit=fails))
    assert nvml.visible() == ()
    assert nvml.driver() is None
    assert nvml.used_by({1}) is None


def test_the_doctor_names_cpu_builds_and_an_old_driver(machine, monkeypatch):
    machine(*TWO)
    monkeypatch.setattr(doctor, "_torch_cuda", lambda: (13, 0))
    found = {check.name: check for check in doctor.examine().checks}
    assert "CUDA up to 12.4" in found["GPU driver"].detail
    assert found["GPU driver"].status == "fail"
    assert found["GPU use"].fix == "make setup DEVICE=cuda"
    assert "though this machine has an NVIDIA GPU" in found["vllm"].detail
    assert "though this machine has an NVIDIA GPU" in found["llamacpp"].detail
    monkeypatch.setattr(doctor, "_torch_cuda", lambda: (12, 8))  # a newer minor version is fine
    assert "GPU driver" not in {check.name for check in doctor.examine().checks}
