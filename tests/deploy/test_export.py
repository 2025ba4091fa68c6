"""Deployments of nano for each target, and proofs with the real servers."""

import configparser
import hashlib
import html
import importlib
import importlib.util
import json
import re
import shlex
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

import llmlab
from llmlab.deploy import kubernetes, llama_worker, proof, requests, snapshot, turns, vllm_server
from llmlab.deploy.exporting import TARGETS
from llmlab.deploy.places import local
from llmlab.deploy.snapshot import Lora
from llmlab.engines.base import Draft
from llmlab.errors import BadInputError, LlmLabError, UnknownNameError, UnsupportedError
from llmlab.runlog import RunLog
from llmlab.types import Message

ABLE = {
    "llamacpp": ("llama-server", "ollama", "compose", "quadlet", "kubernetes"),
    "vllm": ("vllm", "compose", "quadlet", "kubernetes", "ray"),
}


def words(script):
    """The command line of a `serve.sh`."""
    line = next(line for line in script.splitlines() if line.startswith("exec "))
    return shlex.split(line.removeprefix("exec ").removesuffix(' "$@"'))


@pytest.mark.parametrize("target", TARGETS)
def test_each_target(model, target, tmp_path):
    out = tmp_path / "made"
    if target not in ABLE[model.engine]:
        with pytest.raises(UnsupportedError, match="can't"):
            llmlab.export(model, target, out=out)
        assert not out.exists()
        return
    made = llmlab.export(model, target, out=out)
    assert made.folder == out
    assert set(made.files) == {path.name for path in out.iterdir()}
    record = json.loads((out / "export.json").read_text())
    assert record["target"] == target
    assert record["context"] == model.facts.context_length
    assert record["quant"] == model.quant
    for line in (out / "SHA256SUMS").read_text().splitlines():
        digest, path = line.split("  ")
        assert hashlib.sha256(Path(path).read_bytes()).hexdigest() == digest
    assert (out / "chat_template.jinja").read_text() == model.facts.chat_template
    readme = (out / "README.md").read_text()
    assert "Not proved here" in readme
    for name in made.files:
        if name.endswith(".yaml"):
            documents = list(yaml.safe_load_all((out / name).read_text()))
            assert documents
            assert all(isinstance(one, dict) for one in documents)
        if name.endswith(".sh"):
            assert subprocess.run(["sh", "-n", out / name], check=False).returncode == 0


def test_the_command_lines(llamacpp, vllm, tmp_path):
    llmlab.export(llamacpp, "llama-server", out=tmp_path / "l")
    command = words((tmp_path / "l" / "serve.sh").read_text())
    assert command[:3] == ["llama-server", "--model", str(llamacpp.path)]
    assert command[-4:] == ["--host", "127.0.0.1", "--port", "8080"]
    preset = configparser.ConfigParser(interpolation=None)
    preset.read_string("[top]\n" + (tmp_path / "l" / "models.ini").read_text())
    assert preset["nano" if llamacpp.name == "nano" else llamacpp.name]["model"] == str(llamacpp.path)
    llmlab.export(vllm, "vllm", out=tmp_path / "v")
    command = words((tmp_path / "v" / "serve.sh").read_text())
    assert command[:3] == ["vllm", "serve", str(vllm.path.absolute())]
    assert command[command.index("--max-model-len") + 1] == str(vllm.facts.context_length)


def test_compose_is_on_loopback_and_checks_health(model, tmp_path):
    llmlab.export(model, "compose", out=tmp_path / "c", gpus=2)
    found = yaml.safe_load((tmp_path / "c" / "compose.yaml").read_text())
    for name, service in found["services"].items():
        mounts = [one for one in service["volumes"] if isinstance(one, dict)]
        assert mounts
        assert all(one["read_only"] and not one["bind"]["create_host_path"] for one in mounts)
        if name == "ollama-create":
            continue
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])
        assert service["healthcheck"]["test"][0] == "CMD"
        assert service["deploy"]["resources"]["reservations"]["devices"][0]["count"] == 2


@pytest.fixture(scope="module")
def odd(tmp_path_factory, llamacpp):
    """Nano in a folder whose name means something to shells, systemd, compose and INI files."""
    folder = tmp_path_factory.mktemp("odd") / "it's $HOME %n; a #1"
    folder.mkdir()
    shutil.copy(llamacpp.path, folder / "nano.gguf")
    lab = llmlab.Lab()
    yield lab.load(str(folder / "nano.gguf"), engine="llamacpp", name="odd$name")
    lab.close()


def test_odd_paths_reach_their_readers_unchanged(odd, tmp_path):
    folder = str(odd.path.parent)
    llmlab.export(odd, "llama-server", out=tmp_path / "l")
    assert words((tmp_path / "l" / "serve.sh").read_text())[:5] == [
        *("llama-server", "--model", str(odd.path), "--alias", "odd$name"),
    ]  # fmt: skip
    assert "can't have the value" in (tmp_path / "l" / "models.ini").read_text()
    llmlab.export(odd, "compose", out=tmp_path / "c")
    services = yaml.safe_load((tmp_path / "c" / "compose.yaml").read_text())["services"]
    for service in services.values():
        assert service["volumes"][0]["source"] == folder.replace("$", "$$")
    assert services["ollama-create"]["entrypoint"][2] == "odd$$name"
    assert services["llama-server"]["command"][3] == "odd$$name"
    llmlab.export(odd, "quadlet", out=tmp_path / "q")
    unit = (tmp_path / "q" / "llmlab-odd-name.container").read_text()
    assert f"Volume={folder.replace('$', '$$').replace('%', '%%')}:/model:ro,z" in unit
    assert "--alias odd$$name" in unit.replace('"', "")


def values(ini):
    """A preset as llama-server reads it: a value ends at the first ; or # (common/preset.cpp)."""
    lines = [line for line in ini.splitlines() if line and line[0] not in ";#["]
    pairs = [line.split("=", 1) for line in lines]
    return {name.strip(): re.split("[;#]", value)[0].strip() for name, value in pairs}


def test_a_preset_has_all_samplers(llamacpp, tmp_path):
    llmlab.export(llamacpp, "llama-server", out=tmp_path / "l")
    found = values((tmp_path / "l" / "models.ini").read_text())
    assert found["model"] == str(llamacpp.path)
    assert found["sampler-seq"] == "detsmykpx"
    letters = {"temperature": "t", "top_n_sigma": "s", "dry": "d", "penalties": "e", "min_p": "m", "typ_p": "y"}
    letters |= {"top_k": "k", "top_p": "p", "xtc": "x"}
    assert "".join(letters[one] for one in proof.llama_server.SAMPLERS.split(";")) == found["sampler-seq"]


def test_adapters_with_files_of_one_name_are_kept_apart(llamacpp, tmp_path):
    first, second = (Lora(name, tmp_path / name / "adapter.gguf", 8) for name in "ab")
    taken = replace(snapshot.of_model(llamacpp), loras=(first, second))
    places = kubernetes.inside(taken, tmp_path)
    assert [places.of(one.path) for one in taken.loras] == ["/models/adapters/a.gguf", "/models/adapters/b.gguf"]


def test_llama_servers_build_has_every_option():
    """The command line's own parser isn't in the wheel, but the names of its options are."""
    found = importlib.util.find_spec("xllamacpp")
    if found is None:
        pytest.skip(proof.refusal(proof.LLAMA_SERVER))
    build = b"".join(path.read_bytes() for path in Path(found.origin).parent.glob("*.so"))
    for name in (*llama_worker.OPTIONS, "logit-bias", "sampler-seq", "host", "models-preset"):
        assert b"\0--%b\0" % name.encode() in build, name


def test_vllms_own_parser_reads_the_command_line(vllm, tmp_path):
    pytest.importorskip("vllm")
    parsers = importlib.import_module("vllm.entrypoints.launchers.cli_args")
    parser = parsers.make_arg_parser(importlib.import_module("vllm.utils.argparse_utils").FlexibleArgumentParser())
    taken = snapshot.of_model(vllm)
    draft = Draft("ngram", tokens=3)
    taken = replace(taken, loras=(Lora("pirate", tmp_path, 8),), draft=draft, gpus=2, online="fp8")
    command = vllm_server.command(taken, local(tmp_path))
    found = parser.parse_args(["--model", *command[2:]])
    assert found.max_model_len == vllm.facts.context_length
    assert (found.tensor_parallel_size, found.quantization) == (2, "fp8")
    assert found.lora_modules[0].name == "pirate"
    assert found.speculative_config["method"] == "ngram"


def test_an_export_leaves_nothing_of_the_one_before(llamacpp, tmp_path):
    out = tmp_path / "x"
    llmlab.export(llamacpp, "llama-server", out=out)
    (out / "proof.md").write_text("an old proof")
    record = json.loads((out / "export.json").read_text())
    (out / "export.json").write_text(json.dumps(record | {"written": [*record["written"], "proof.md", "../x.txt"]}))
    (out / "mine.txt").write_text("mine")
    (tmp_path / "x.txt").write_text("mine")
    made = llmlab.export(llamacpp, "quadlet", out=out)
    assert {path.name for path in out.iterdir()} == {*made.files, "mine.txt"}
    assert (tmp_path / "x.txt").exists()


def test_adapters(llamacpp, tmp_path):
    llamacpp.add_adapter("pirate", "pirate")
    llamacpp.add_adapter("terse", "terse")
    try:
        llamacpp.use_adapter("pirate:0.7+terse:0.3")
        llmlab.export(llamacpp, "llama-server", out=tmp_path / "mix")
        command = words((tmp_path / "mix" / "serve.sh").read_text())
        given = command[command.index("--lora-scaled") + 1]
        assert [part.rsplit(":", 1)[1] for part in given.split(",")] == ["0.7", "0.3"]
        with pytest.raises(UnsupportedError, match=r"adapter mix pirate:0\.7"):
            llmlab.export(llamacpp, "ollama", out=tmp_path / "no")
        assert not (tmp_path / "no").exists()
        llamacpp.use_adapter("pirate")
        llmlab.export(llamacpp, "ollama", out=tmp_path / "one")
        assert "ADAPTER " in (tmp_path / "one" / "Modelfile").read_text()
        assert (tmp_path / "one" / "Modelfile.terse").is_file()
    finally:
        for name in ("pirate", "terse"):
            llamacpp.remove_adapter(name)


def test_what_is_refused(llamacpp, tmp_path):
    with pytest.raises(UnknownNameError, match="target 'composer'"):
        llmlab.export(llamacpp, "composer", out=tmp_path / "x")
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(BadInputError, match="isn't an earlier export"):
        llmlab.export(llamacpp, "llama-server", out=tmp_path)
    llmlab.export(llamacpp, "llama-server", out=tmp_path / "x")
    assert llmlab.export(llamacpp, "llama-server", out=tmp_path / "x").files  # again, over its own files


def test_no_key_is_written(llamacpp, tmp_path, monkeypatch):
    monkeypatch.setenv("LLAMA_API_KEY", "secret-value")
    for target in ABLE["llamacpp"]:
        llmlab.export(llamacpp, target, out=tmp_path / target)
        assert all("secret-value" not in path.read_text() for path in (tmp_path / target).iterdir())


def test_a_template_of_plain_turns_is_translated(llamacpp):
    found = turns.plain_turns(llamacpp.render)
    talk = [Message("user", "a"), Message("assistant", "b"), Message("user", "c")]
    assert found.render(talk) == llamacpp.render(talk)
    assert "{{- range $i, $m := .Messages }}" in found.go()
    assert turns.plain_turns(lambda talk: f"{len(talk)}: {talk[-1].content}") is None


def test_a_proof_with_llama_server(llamacpp, tmp_path):
    if proof.refusal(proof.LLAMA_SERVER):
        pytest.skip(proof.refusal(proof.LLAMA_SERVER))
    llamacpp.add_adapter("pirate", "pirate")
    try:
        llamacpp.use_adapter("pirate:0.5")
        made = llmlab.export(
            llamacpp, "llama-server", out=tmp_path / "p", prove=True, prompts=["Who are you?", "What is 12 + 30?"]
        )
    finally:
        llamacpp.remove_adapter("pirate")
    assert [one.read_alike for one in made.proof.answers] == [True, True]
    assert sum(one.same for one in made.proof.answers) >= 1
    assert all(one.logprob_difference < 0.05 for one in made.proof.answers)
    assert 0 < made.proof.rounding < 0.05
    report = json.loads((tmp_path / "p" / "proof.json").read_text())
    assert report["answers"][0]["here"] == made.proof.answers[0].here
    assert "greedy answers are equal" in (tmp_path / "p" / "README.md").read_text()


def test_a_proof_that_fails_is_seen(llamacpp, tmp_path, monkeypatch):
    """A server with another adapter scale than the kernel's answers differently, and the proof says so."""
    if proof.refusal(proof.LLAMA_SERVER):
        pytest.skip(proof.refusal(proof.LLAMA_SERVER))
    llamacpp.add_adapter("pirate", "pirate")
    real = proof.llama_server.options
    monkeypatch.setattr(
        proof.llama_server, "options", lambda *given: {k: v for k, v in real(*given).items() if k != "lora-scaled"}
    )
    try:
        llamacpp.use_adapter("pirate")
        made = llmlab.export(llamacpp, "llama-server", out=tmp_path / "p", prove=True, prompts=["Who are you?"])
    finally:
        llamacpp.remove_adapter("pirate")
    (answer,) = made.proof.answers
    assert not answer.same
    assert answer.first is not None
    assert made.proof.kind(answer) in ("beyond", "unknown")
    assert "differ, within rounding" not in (tmp_path / "p" / "proof.md").read_text()


@pytest.mark.parametrize(("gap", "kind"), [(0.1, "rounding"), (0.3, "beyond"), (None, "unknown")])
def test_a_difference_is_compared_with_the_kernels_own_rounding(gap, kind):
    shared = {"prompt": "p", "read_alike": True, "here": "a", "there": "b"}
    same = proof.Answer(**shared, same=True, rounding=0.08)
    other = proof.Answer(**shared, same=False, first=3, gap=gap, rounding=0.01)
    found = proof.Proof("s", "c", "built-in", (same, other))
    assert [found.kind(one) for one in found.answers] == ["same", kind]
    assert json.loads(found.json())["kinds"] == ["same", kind]
    assert f"1 {kind}" in found.summary or "1 of 1 differences are within rounding" in found.summary


def test_a_proof_has_enough_requests(llamacpp, tmp_path):
    log = RunLog(tmp_path / "runs.db")
    try:
        log.add(llamacpp.generate("Who are you?", max_tokens=1), source="cell")
        log.close()
        first, *others = requests.recorded(log, llamacpp)
    finally:
        log.close()
    assert first == (Message("user", "Who are you?"),)
    assert others == list(proof.BUILT_IN[: requests.LEAST - 1])


def test_a_server_that_does_not_start(llamacpp, tmp_path, monkeypatch):
    if proof.refusal(proof.LLAMA_SERVER):
        pytest.skip(proof.refusal(proof.LLAMA_SERVER))
    monkeypatch.setattr(proof.llama_server, "options", lambda *_: {"model": "/no/such/file.gguf"})
    with pytest.raises(LlmLabError, match=r"llama-server (ended|didn't)"):
        llmlab.export(llamacpp, "llama-server", out=tmp_path / "p", prove=True)
    assert (tmp_path / "p" / "serve.sh").is_file()


@pytest.mark.parametrize(
    ("target", "unproved"), [("vllm", ""), ("ray", "Ray Serve didn't run, and ray.yaml wasn't read")]
)
def test_a_proof_with_vllm(vllm, tmp_path, target, unproved):
    made = llmlab.export(vllm, target, out=tmp_path / "p", prove=True, prompts=["What is 12 + 30?", "Who are you?"])
    assert made.proof.command.startswith("vllm serve ")
    says_unproved(made, unproved)
    assert [one.read_alike for one in made.proof.answers] == [True, True]
    assert made.proof.answers[0].same
    assert all(one.logprob_difference < 0.2 for one in made.proof.answers)


def test_a_proof_of_compose_starts_no_container(llamacpp, tmp_path):
    if proof.refusal(proof.LLAMA_SERVER):
        pytest.skip(proof.refusal(proof.LLAMA_SERVER))
    made = llmlab.export(llamacpp, "compose", out=tmp_path / "p", prove=True, prompts=["Who are you?"])
    says_unproved(made, "no container ran: the answers are those of the same command line without one; ollama wasn't")


def says_unproved(made, words):
    """Whether an export says everywhere what its proof didn't start."""
    texts = [repr(made), made.html()] + [(made.folder / name).read_text() for name in ("README.md", "proof.md")]
    assert all(("not proved here" in html.unescape(text).lower()) == bool(words) for text in texts)
    assert all(words in " ".join(html.unescape(text).split()) for text in texts[1:])
    assert made.unproved.startswith(words)
    assert json.loads((made.folder / "proof.json").read_text())["unproved"] == made.unproved


def test_not_proved_here(llamacpp, tmp_path):
    made = llmlab.export(llamacpp, "ollama", out=tmp_path / "o", prove=True)
    assert made.proof is None
    assert "ollama can't be started here" in (tmp_path / "o" / "README.md").read_text()


def test_kubernetes_objects_follow_its_schemas(model, tmp_path):
    validator = pytest.importorskip("kubernetes_validate", reason="pip install --no-deps kubernetes-validate")
    llmlab.export(model, "kubernetes", out=tmp_path / "k", gpus=1)
    for document in yaml.safe_load_all((tmp_path / "k" / "kubernetes.yaml").read_text()):
        validator.validate(document, validator.latest_version(), strict=True)
