"""Advice on a model of the hub: its listing and headers are asked for, and nothing is downloaded."""

from llmlab import advise
from llmlab.magics.commands.load import Load
from llmlab.quant.gguf_cache import to_gguf
from tests.hub.fakes import NANO
from tests.hub.hubserver import Repo, folder_files


def test_memory_is_told_from_headers_read_by_ranges(serve, tmp_path):
    gguf = to_gguf(NANO, quant="Q8_0").read_bytes() + bytes(5_000_000)
    server = serve({"acme/nano": Repo({**folder_files(NANO), "nano-Q8_0.gguf": gguf})})
    advice = advise("hf:acme/nano", needs="tools", hardware="gpu:24")
    assert (advice.engine, advice.quant, advice.auto) == ("vllm", "bf16", "vllm")
    found = {reason.what: reason.evidence for reason in advice.reasons}
    assert "KV cache 1.61 GB for 524,288 tokens" in found["memory in vllm"]
    assert "chat template supports tools" in found["need tools"]
    assert "to download" in found["files"]
    assert max(server.sent.values()) < 1_000_000
    assert not (tmp_path / "hub").exists()
    assert (
        advise("hf:acme/nano:Q8_0", hardware="gpu:24").command
        == "%llm load hf:acme/nano:Q8_0 --engine llamacpp --quant Q8_0"
    )
    line = Load.parser().parse_line(advice.command.removeprefix("%llm load"))
    assert (line.model, line.engine, line.quant) == ("hf:acme/nano", "vllm", "bf16")


def test_a_gated_form_is_said_and_another_forms_header_serves(serve):
    """The 16-bit folder of a model of the catalogue is gated: the GGUF file's header tells the sizes."""
    gguf = to_gguf(NANO, quant="Q8_0").read_bytes()
    repos = {
        "mistralai/Mistral-7B-Instruct-v0.3": Repo(folder_files(NANO), gated=True),
        "bartowski/Mistral-7B-Instruct-v0.3-GGUF": Repo({"Mistral-7B-Instruct-v0.3-Q4_K_M.gguf": gguf}),
    }
    serve(repos)
    advice = advise("mistral-7b", hardware="gpu:24")
    found = {reason.what: reason.evidence for reason in advice.reasons}
    assert "requires accepting its terms and a login" in found["files"]
    assert "KV cache" in found["memory in vllm"]
    assert "without the KV cache" not in found["memory in vllm"]
