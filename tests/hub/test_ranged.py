"""Headers of files on the hub, read by ranges: the same as from the file, for few bytes."""

import dataclasses
from pathlib import Path

import pytest

from llmlab.errors import LoadError
from llmlab.files.headers import read_header
from llmlab.loading.storage import show
from llmlab.quant.gguf_cache import to_gguf
from tests.hub.fakes import NANO
from tests.hub.hubserver import Repo, folder_files


def same(remote, local):
    blank = {"path": Path(), "files": (), "name": "", "tokenizer": ""}
    return dataclasses.replace(remote, **blank) == dataclasses.replace(local, **blank)


def test_a_gguf_file_s_header_for_a_few_hundred_kilobytes(serve):
    local = to_gguf(NANO, quant="Q8_0")
    big = local.read_bytes() + bytes(30_000_000)
    server = serve({"acme/nano-GGUF": Repo({"nano-Q8_0.gguf": big}, cdn=True)})
    header = show("hf:acme/nano-GGUF:Q8_0")
    assert same(header, read_header(local))
    assert header.chat_template
    assert str(header.path) == "hf:acme/nano-GGUF/nano-Q8_0.gguf"
    assert server.sent["nano-Q8_0.gguf"] < 400_000
    assert set(server.cdn_tokens) == {None}


def test_a_folder_s_header(serve, tmp_path):
    card = b"---\nlicense: apache-2.0\n---\n"
    server = serve({"acme/nano": Repo({**folder_files(NANO), "README.md": card})})
    header = show("hf:acme/nano")
    assert dataclasses.replace(header, licence="") == dataclasses.replace(
        read_header(NANO), path=header.path, files=header.files, name="nano", tokenizer=header.tokenizer, licence=""
    )
    assert header.licence == "apache-2.0"
    assert server.sent["model.safetensors"] <= 128 * 1024
    assert not (tmp_path / "hub").exists()  # nothing was put into the cache


def test_broken_remote_files_are_told(serve):
    whole = to_gguf(NANO, quant="Q8_0").read_bytes()
    serve(
        {
            "acme/short-GGUF": Repo({"m-Q8_0.gguf": whole[:-5000]}),
            "acme/page-GGUF": Repo({"m-Q8_0.gguf": b"<html>" * 100}),
            "acme/parts-GGUF": Repo({"m-Q8_0-00001-of-00003.gguf": whole}),
        }
    )
    with pytest.raises(LoadError, match="truncated"):
        show("hf:acme/short-GGUF")
    with pytest.raises(LoadError, match="not a GGUF file"):
        show("hf:acme/page-GGUF")
    with pytest.raises(ValueError, match="1 of the 3 parts"):
        show("hf:acme/parts-GGUF")


def test_what_is_cached_is_read_there(serve):
    import llmlab

    server = serve({"acme/nano-GGUF": Repo({"nano-Q8_0.gguf": to_gguf(NANO, quant="Q8_0").read_bytes()})})
    pulled = llmlab.pull("hf:acme/nano-GGUF", engine="llamacpp", progress=lambda *_: None)
    assert pulled.fetched
    server.sent.clear()
    assert show("hf:acme/nano-GGUF").path == pulled.path
    assert server.sent == {}
