"""What llmlab uses of vLLM's internals is in the installed one; what isn't is named."""

import shutil

from llmlab import doctor
from llmlab.engines.vllm import check
from llmlab.machine import hardware


def test_the_installed_vllm_has_everything(capsys):
    assert check.missing(check.installed(), cpu=hardware.vllm_build() == "CPU") == []
    assert check.main([]) == 0
    assert "names that llmlab uses are in" in capsys.readouterr().out


def test_what_a_release_renamed_is_named(tmp_path, capsys):
    folder = tmp_path / "vllm"
    for use in check.USES:
        (folder / use.file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(check.installed() / use.file, folder / use.file)
    assert check.main([str(folder)]) == 0
    file = folder / "v1/engine/core_client.py"
    file.write_text(file.read_text().replace("self.outputs_queue", "self.output_queue"))
    (folder / "logprobs.py").unlink()
    check._parsed.cache_clear()
    assert check.missing(folder, cpu=False) == [
        "v1/engine/core_client.py: SyncMPClient.__init__.self.outputs_queue",
        "logprobs.py: FlatLogprobs",
    ]
    assert check.main([str(folder)]) == 1
    assert "self.outputs_queue" in capsys.readouterr().out
    assert check.main([str(tmp_path / "none")]) == 1


def test_the_doctor_names_it(monkeypatch):
    monkeypatch.setattr(check, "missing", lambda *_, **__: ["a.py: A.b", "a.py: A.c", "a.py: A.d", "a.py: A.e"])
    (found,) = [one for one in doctor.examine().checks if one.name == "vllm"]
    assert found.status == "fail"
    assert "a.py: A.d and 1 more" in found.detail
