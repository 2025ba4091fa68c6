"""What lies on disk, and what `remove` deletes: the caches' own files, nothing else."""

import shutil
import time

import pytest

import llmlab
from llmlab.errors import BadInputError, UnknownNameError
from llmlab.hub.cache import on_disk
from llmlab.loading.storage import in_use, removable
from llmlab.quant.gguf_cache import to_gguf
from tests.hub.fakes import NANO, llama_folder
from tests.hub.hubserver import COMMIT, Repo, folder_files


@pytest.fixture(scope="module")
def files():
    return {tag: to_gguf(NANO, quant=tag).read_bytes() for tag in ("Q8_0", "Q4_0")}


@pytest.fixture
def hub(serve, files):
    gguf = {f"nano-{tag}.gguf": data for tag, data in files.items()}
    return serve(
        {
            "acme/nano": Repo(folder_files(NANO)),
            "acme/nano-GGUF": Repo({**gguf, "README.md": b"hi"}, revisions=("main", COMMIT)),
        }
    )


def pull(spec, **options):
    return llmlab.pull(spec, progress=lambda *_: None, **options)


def listed():
    return {(one.name, one.quant, one.kind) for one in on_disk()}


def test_what_is_pulled_and_made_is_listed_with_size_and_use(hub, files):
    assert on_disk() == ()
    pull("hf:acme/nano-GGUF:Q8_0")
    pull("hf:acme/nano-GGUF:Q4_0")
    pull("hf:acme/nano", engine="vllm")
    to_gguf(NANO, quant="Q8_0")  # from F16, which is kept, too
    assert listed() == {
        ("hf:acme/nano-GGUF", "Q8_0", "downloaded"), ("hf:acme/nano-GGUF", "Q4_0", "downloaded"),
        ("hf:acme/nano", "bf16", "downloaded"), ("nano", "Q8_0", "made"), ("nano", "F16", "made"),
    }  # fmt: skip
    one = next(one for one in on_disk() if (one.quant, one.kind) == ("Q4_0", "downloaded"))
    assert one.bytes == len(files["Q4_0"])
    assert abs(one.used - time.time()) < 300


def test_one_quant_goes_and_the_rest_stays(hub, files):
    path = pull("hf:acme/nano-GGUF:Q8_0").path
    other = pull("hf:acme/nano-GGUF:Q4_0").path
    assert llmlab.remove("hf:acme/nano-GGUF", quant="q8_0") == len(files["Q8_0"])
    assert not path.exists()
    assert other.read_bytes() == files["Q4_0"]
    assert listed() == {("hf:acme/nano-GGUF", "Q4_0", "downloaded")}
    assert pull("hf:acme/nano-GGUF:Q8_0").fetched  # the cache is whole: it can be pulled again


def test_all_of_a_repository_goes_with_what_was_made_of_it(hub, tmp_path):
    folder = pull("hf:acme/nano", engine="vllm").path
    to_gguf(folder)
    size = sum(one.bytes for one in on_disk())
    assert len(on_disk()) == 2
    assert llmlab.remove("hf:acme/nano") == size
    assert on_disk() == ()
    assert not (tmp_path / "hub/models--acme--nano").exists()


def test_parts_are_listed_and_removed(hub, tmp_path):
    part = tmp_path / "hub/models--acme--nano-GGUF/blobs/abc.incomplete"
    part.parent.mkdir(parents=True)
    part.write_bytes(bytes(1000))
    assert [(one.kind, one.bytes) for one in on_disk()] == [("part", 1000)]
    assert llmlab.remove("hf:acme/nano-GGUF") == 1000
    assert not part.exists()


def test_a_users_own_files_are_never_deleted(hub, tmp_path):
    folder = llama_folder(tmp_path / "mine")
    file = tmp_path / "own.gguf"
    shutil.copy(to_gguf(NANO, quant="Q8_0"), file)
    before = sorted(folder.iterdir())
    for spec in (str(folder), str(file)):
        with pytest.raises(BadInputError, match=r"no files of .* your own file, which %llm rm never deletes"):
            llmlab.remove(spec)
    made = to_gguf(folder)
    assert llmlab.remove(str(folder)) > 0
    assert not made.exists()
    assert sorted(folder.iterdir()) == before
    assert file.exists()


def test_nano_itself_stays_and_its_made_forms_go(hub):
    made = to_gguf(NANO, quant="Q8_0")
    assert {one.quant for one in removable("nano")} == {"Q8_0", "F16"}
    llmlab.remove("nano", quant="Q8_0")
    assert not made.exists()
    llmlab.remove("nano")
    assert (NANO / "model.safetensors").is_file()
    with pytest.raises(BadInputError, match="The caches have no files of nano"):
        llmlab.remove("nano")


def test_files_in_use_are_known(hub):
    pulled = pull("hf:acme/nano-GGUF:Q8_0")
    doomed = removable("hf:acme/nano-GGUF")
    assert in_use(doomed, [pulled.path]) == pulled.path
    assert in_use(doomed, [NANO]) is None


def test_a_discovered_quant_is_removed_by_the_models_name(hub):
    pull("hf:acme/nano", quant="Q4_0", engine="llamacpp", from_="acme/nano-GGUF")
    assert {one.repo for one in removable("hf:acme/nano")} == {"acme/nano-GGUF"}


def test_unknown_names(hub):
    with pytest.raises(UnknownNameError):
        llmlab.remove("no-such-model")
    with pytest.raises(BadInputError, match="The caches have no files of Q4_0 of hf:acme/nano-GGUF"):
        llmlab.remove("hf:acme/nano-GGUF:Q4_0")
