"""A build whose AMX code crashes is recognized, and models are loaded without that code."""

import pytest

from llmlab.engines.llamacpp import amx

# The `.comment` section of libggml-cpu.so as compiled by these compilers.
COMMENTS = {
    b"GCC: (Debian 12.2.0-14+deb12u1) 12.2.0": True,
    b"GCC: (Ubuntu 11.4.0-1ubuntu1~22.04) 11.4.0": True,
    b"GCC: (Ubuntu 13.2.0-23ubuntu4) 13.2.0": True,
    b"GCC: (Ubuntu 12.4.0-2ubuntu1) 12.4.0": False,
    b"GCC: (Ubuntu 13.3.0-6ubuntu2~24.04) 13.3.0": False,
    b"GCC: (GNU) 14.2.1 20240912": False,
    b"clang version 19.1.7": False,
}


@pytest.mark.parametrize("comment", COMMENTS, ids=lambda comment: comment.decode().split()[-1])
def test_the_compiler_is_read_from_the_library(comment):
    assert amx.compiled_with_the_bug(b"\x7fELF\x00" + comment + b"\x00") is COMMENTS[comment]


@pytest.fixture
def built(monkeypatch, tmp_path):
    """Replaces the installed build by one with the given system info and library."""

    def replace(info, library):
        (tmp_path / "libggml-cpu.so.0").write_bytes(library)
        monkeypatch.setattr("llama_cpp.llama_print_system_info", lambda: info)
        monkeypatch.setattr(amx.architectures, "library", lambda: tmp_path / "libllama.so")
        amx.crashes.cache_clear()

    yield replace
    amx.crashes.cache_clear()


@pytest.mark.parametrize(
    ("info", "crashes"), [(b"CPU : AVX2 = 1 | AMX_INT8 = 1 | REPACK = 1 |", True), (b"CPU : AVX2 = 1 |", False)]
)
def test_models_are_then_loaded_without_it(built, lab, info, crashes):
    built(info, b"GCC: (Debian 12.2.0-14+deb12u1) 12.2.0")
    assert amx.crashes() is crashes
    model = lab.load("nano", engine="llamacpp", quant="Q8_0", ctx=512)
    assert model.generate("Hello!", max_tokens=8).usage.completion_tokens > 0
    assert model._engine._settings.model_params().use_extra_bufts is not crashes
