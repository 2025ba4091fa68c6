"""Text and tokens on both engines: complete characters only, bytes in the log probabilities, one BOS."""

import codecs
import json
import shutil

import pytest

from llmlab import zoo

TEXTS = ("🦊🙂", "你好，世界", "naïve 🇫🇷 façade")


def decoded(data):
    """The text of bytes, without an incomplete character at their end."""
    return codecs.getincrementaldecoder("utf-8")("replace").decode(data)


def joined(logprobs):
    return b"".join(bytes(entry.bytes) for entry in logprobs)


@pytest.mark.parametrize("text", TEXTS)
def test_an_answer_cut_at_any_token_has_complete_characters(model, text):
    ids = model.tokenize(text, special=False)
    assert len(ids) > len(text)  # characters of several tokens
    cuts = range(1, len(ids) + 2)
    answers = [model.generate("Say it.", choice=[text], max_tokens=cut, temperature=0, logprobs=1) for cut in cuts]
    texts = [answer.text for answer in answers]
    for cut, answer in zip(cuts, answers, strict=True):
        assert answer.text == text[: len(answer.text)], cut
        assert "\ufffd" not in answer.text
        assert len(answer.token_ids) == min(cut, len(ids) + 1)
        data = joined(answer.logprobs)
        assert text.encode().startswith(data)
        assert answer.text == decoded(data)
    assert texts == sorted(texts, key=len)
    assert texts[-1] == text


@pytest.mark.parametrize("options", [{}, {"stop": ("zzzz",)}, {"n": 3}, {"ignore_eos": True}])
def test_the_bytes_of_the_log_probabilities_are_the_text(model, options):
    prompts = [f"Say 你好 🦊 {i}" for i in range(12)]
    sampling = {"temperature": 3.0, "seed": 11, "max_tokens": 12, "logprobs": 0, **options}
    for answer in model.generate(prompts, **sampling):
        for choice in answer.choices:
            data = joined(choice.logprobs)
            assert choice.text == decoded(data)
            assert all(isinstance(one, int) for entry in choice.logprobs for one in entry.bytes)
            if choice.finish_reason == "stop":
                assert choice.logprobs[-1].bytes == []
    json.dumps([entry.bytes for entry in choice.logprobs])


def test_half_of_a_surrogate_pair_is_read_as_a_question_mark(model):
    assert model.tokenize("a\ud800b") == model.tokenize("a?b")
    assert (
        model.generate("a\ud800b", max_tokens=2).prompt_token_ids
        == model.generate("a?b", max_tokens=2).prompt_token_ids
    )


def test_streams_give_the_same_text_in_pieces(model):
    for seed in range(6):
        options = {"temperature": 3.0, "seed": seed, "max_tokens": 9, "logprobs": 0}
        full = model.generate("你好", **options).text
        chunks = list(model.stream("你好", **options))
        assert "".join(chunk.text for chunk in chunks) == full
        assert decoded(joined([entry for chunk in chunks for entry in chunk.logprobs])) == full


@pytest.fixture(scope="module")
def with_bos(tmp_path_factory):
    """Nano with a tokenizer that prepends BOS."""
    folder = tmp_path_factory.mktemp("bos") / "nano-bos"
    shutil.copytree(zoo.path("nano"), folder, ignore=shutil.ignore_patterns("awq", "gptq"))
    config = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))
    config |= {"add_bos_token": True, "bos_token": "<|endoftext|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config), "utf-8")
    tokenizer = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    bos = {"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}}
    tokenizer["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [bos, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [bos, {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<|endoftext|>": {"id": "<|endoftext|>", "ids": [0], "tokens": ["<|endoftext|>"]}},
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), "utf-8")
    model_config = json.loads((folder / "config.json").read_text("utf-8"))
    (folder / "config.json").write_text(json.dumps({**model_config, "bos_token_id": 0}), "utf-8")
    return folder


@pytest.mark.parametrize("engine", ["llamacpp", "vllm"])
def test_a_raw_prompt_gets_bos_once(lab, with_bos, engine):
    model = lab.load(with_bos, engine=engine)
    assert model.facts.add_bos
    options = {"raw": True, "temperature": 0, "max_tokens": 2}
    plain = model.generate("Hello there", **options)
    ids = plain.prompt_token_ids
    assert ids[0] == 0
    assert ids.count(0) == 1
    assert model.generate("<|endoftext|>Hello there", **options).prompt_token_ids == ids
    # A BOS that the user doubled stays doubled.
    assert model.generate("<|endoftext|><|endoftext|>a", **options).prompt_token_ids[:2] == (0, 0)
