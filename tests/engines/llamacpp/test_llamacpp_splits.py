"""The split of the o200k vocabulary (gpt-oss): words with combining marks stay together, as in tokenizer.json."""

import json
import subprocess
import sys
import warnings

import gguf
import pytest
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

import llmlab
from llmlab.engines.llamacpp import splits, vocabulary
from llmlab.engines.llamacpp.model import NativeModel
from llmlab.loading.retrieval import resolve
from tests.files import gguf_edit
from tests.real import tiny

# From gpt-oss's tokenizer.json.
O200K = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
MARKED = (
    "हिन्दी में लिखना", "বাংলা ভাষা", "தமிழ் மொழி", "สวัสดีครับ ยินดีต้อนรับ", "العَرَبِيَّة",
    "Cafe\u0301 nai\u0308ve",
)  # fmt: skip
PLAIN = (
    "Don't SHOUT, iPhone's 1234567 (x+y)//2\n\n  done", "École Straße", "русский текст", "日本語のテキスト", "  \t\n a",
)  # fmt: skip
CAPITALS = ("ESPAÑA", "FRANÇAIS", "MÜNCHEN", "ÉCOLE")
NO_CAPITALS = ("España", "Français", "Ñ", "МОСКВА", "ΑΘΉΝΑ")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A tokenizer with this split, trained on these texts, and a GGUF file of it."""
    core = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(O200K), "isolated")
    core.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    core.train_from_iterator(
        [*MARKED, *PLAIN, *CAPITALS, *NO_CAPITALS] * 20,
        trainers.BpeTrainer(vocab_size=700, initial_alphabet=alphabet, show_progress=False),
    )
    tokens = [core.id_to_token(number) for number in range(core.get_vocab_size())]
    tokens.append("<|end|>")
    merges = [one if isinstance(one, str) else " ".join(one) for one in json.loads(core.to_str())["model"]["merges"]]
    file = tmp_path_factory.mktemp("splits") / "o200k.gguf"
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-4o")
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.NORMAL] * (len(tokens) - 1) + [gguf.TokenType.CONTROL])
    writer.add_token_merges(merges)
    writer.add_eos_token_id(len(tokens) - 1)
    tiny._write(writer, len(tokens), file)
    return core, file


def encoded(file, texts):
    with vocabulary.encoder(file) as encode:
        return [encode(text) for text in texts]


def test_the_ids_are_the_tokenizers(trained):
    core, file = trained
    assert encoded(file, MARKED + PLAIN) == [core.encode(text).ids for text in MARKED + PLAIN]


def test_the_correction_is_still_needed(trained, monkeypatch):
    core, file = trained
    monkeypatch.setattr(splits, "CORRECTED", {})
    wanted = [core.encode(text).ids for text in MARKED + PLAIN]
    # If this fails, llama.cpp's own split of gpt-4o has learned about marks: remove llmlab/engines/llamacpp/splits.py.
    assert encoded(file, MARKED + PLAIN) != wanted


def test_accented_capitals_still_have_other_ids(trained):
    core, file = trained
    wanted = [core.encode(text).ids for text in CAPITALS]
    # If this fails, llama.cpp splits accented capitals rightly: remove `splits.warn`, and the line in docs/models.md.
    assert all(ids != own for ids, own in zip(encoded(file, CAPITALS), wanted, strict=True))
    assert encoded(file, NO_CAPITALS) == [core.encode(text).ids for text in NO_CAPITALS]


@pytest.mark.parametrize(("split", "count"), [("gpt-4o", 1), ("smollm", 0)])
def test_a_load_warns_of_accented_capitals(tmp_path, split, count):
    def change(keys, tensors):
        keys[splits.KEY] = gguf_edit.text(split)

    source = resolve("nano", engine="llamacpp").path
    file = gguf_edit.edited(source, tmp_path / f"{split}.gguf", change)
    lab = llmlab.Lab()
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        lab.load(str(file), engine="llamacpp", ctx=256)
    lab.close()
    found = [str(one.message) for one in seen if "ESPAÑA" in str(one.message)]
    assert len(found) == count
    assert all(one.startswith("gpt-4o.gguf: ") and "\n" not in one for one in found)


@pytest.mark.parametrize("kind", ["x", "X", " ", "\n", "!", "กำ"])
def test_a_long_run_of_one_kind_does_not_end_the_process(trained, kind):
    _, file = trained
    text = f"a {kind * 60_000} b 1"
    code = (
        "import sys; from pathlib import Path; from llmlab.engines.llamacpp import vocabulary\n"
        "with vocabulary.encoder(Path(sys.argv[1])) as encode: print(len(encode(sys.stdin.read())))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(file)], input=text, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-500:]
    assert int(done.stdout) > 0


def test_only_long_runs_are_cut():
    long = "é" * (2 * splits.LONGEST + 5)
    text = f"Many words, {'and more words. ' * 500}{long}1234{'-' * splits.LONGEST}"
    found = list(splits.parts(text))
    assert "".join(found) == text
    assert [len(part) for part in found[1:]] == [splits.LONGEST, 5 + 4 + splits.LONGEST]
    assert list(splits.parts("words " * 5000)) == ["words " * 5000]


def test_a_text_to_embed_is_cut_alike(trained):
    import llama_cpp

    params = llama_cpp.llama_model_default_params()
    params.vocab_only = True
    model = NativeModel(trained[1], params, lambda _: True)
    try:
        assert model.surrounded("a b 1") == model._tokenized("a b 1", special=False, surround=True)
        assert model.surrounded("x" * 60_000) == [*model._added("bos"), *model.encode("x" * 60_000, special=False)]
    finally:
        model.free()
