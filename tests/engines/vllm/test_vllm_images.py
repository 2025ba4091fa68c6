"""Image input, with a tiny vision model with random weights: its output is meaningless but depends on the images."""

from __future__ import annotations

import io

import pytest

from llmlab.errors import BadInputError, GenerationError, UnsupportedError
from llmlab.types import Message, data_url

TEMPLATE = (
    "{% for m in messages %}{{ m.role }}: {% if m.content is string %}{{ m.content }}{% else %}"
    "{% for part in m.content %}{{ '<image>' if part.type == 'image' else part.text }}{% endfor %}{% endif %}\n"
    "{% endfor %}assistant:"
)


@pytest.fixture(scope="module")
def vision(tmp_path_factory):
    """A two-layer Idefics3 (SmolVLM's architecture) with nano's tokenizer, loaded in vLLM."""
    import torch
    from transformers import (
        AutoTokenizer,
        Idefics3Config,
        Idefics3ForConditionalGeneration,
        Idefics3ImageProcessorPil,
        Idefics3Processor,
    )

    from llmlab import Lab
    from llmlab.loading.retrieval import resolve

    folder = tmp_path_factory.mktemp("vision")
    tokenizer = AutoTokenizer.from_pretrained(resolve("nano", engine="vllm").path)
    marks = ["<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>"]
    tokenizer.add_special_tokens({"additional_special_tokens": marks})
    tokenizer.chat_template = TEMPLATE
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {"model_type": "llama", "vocab_size": 2112, "num_key_value_heads": 2, "head_dim": 32, "bos_token_id": 0}
    text |= {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": 0, "max_position_embeddings": 512}
    config = Idefics3Config(
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        scale_factor=2,
        vision_config={**shape, "image_size": 56, "patch_size": 14},
        text_config={**shape, **text},
    )
    torch.manual_seed(0)
    Idefics3ForConditionalGeneration(config).to(torch.bfloat16).save_pretrained(folder)
    images = Idefics3ImageProcessorPil(
        size={"longest_edge": 56}, max_image_size={"longest_edge": 56}, do_image_splitting=False
    )
    Idefics3Processor(image_processor=images, tokenizer=tokenizer, image_seq_len=4).save_pretrained(folder)
    lab = Lab()
    yield lab.load(str(folder), engine="vllm", ctx=256)
    lab.close()


def png(colour):
    from PIL import Image

    out = io.BytesIO()
    Image.new("RGB", (80, 60), colour).save(out, "PNG")
    return out.getvalue()


def answer(model, *images, text="What is this?", **options):
    return model.chat([Message("user", text, images=images)], temperature=0, max_tokens=6, logprobs=1, **options)


def sure(completion):
    return [one.logprob for one in completion.logprobs]


def test_the_answer_depends_on_the_image(vision):
    assert vision.facts.sees
    red, blue, again = (answer(vision, png(colour)) for colour in ("red", "blue", "red"))
    assert red.token_ids == again.token_ids
    assert sure(red) == pytest.approx(sure(again), abs=1e-3)
    assert sure(red) != pytest.approx(sure(blue), abs=1e-3)
    without = answer(vision)
    assert red.usage.prompt_tokens >= without.usage.prompt_tokens + 4  # an image is at least four tokens here
    assert len(red.prompt_token_ids) < red.usage.prompt_tokens
    two = answer(vision, png("red"), png("blue"))
    assert two.usage.prompt_tokens > red.usage.prompt_tokens
    assert vision.generate("Only text.", max_tokens=3, ignore_eos=True).usage.completion_tokens == 3


def test_parts_in_openais_form(vision):
    parts = [
        {"type": "image_url", "image_url": {"url": data_url(png("red"))}},
        {"type": "text", "text": "What is this?"},
    ]
    message = Message.of({"role": "user", "content": parts})
    assert message.as_dict()["content"] == parts
    assert message == Message("user", "What is this?", images=(png("red"),))
    assert (
        vision.chat([{"role": "user", "content": parts}], temperature=0, max_tokens=6).token_ids
        == answer(vision, png("red")).token_ids
    )
    for url in ("https://example.org/cat.png", "data:image/png;base64,bm90IGFuIGltYWdl", "data:text/html;base64,PHg+"):
        with pytest.raises(BadInputError, match="data: URL"):
            Message.of({"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]})
    with pytest.raises(BadInputError, match="can't have audio"):
        Message.of({"role": "user", "content": [{"type": "audio"}]})


def test_a_broken_image_fails_its_request_alone(vision):
    with pytest.raises(GenerationError, match="Can't read an image"):
        answer(vision, b"\x89PNG broken")
    assert answer(vision, png("red")).finish_reason in ("length", "stop")


def test_text_only_models_reject_images(llamacpp, vllm):
    for model in (llamacpp, vllm):
        with pytest.raises(UnsupportedError, match="supports text only"):
            answer(model, png("red"))


def test_in_the_chat(vision, tmp_path, monkeypatch):
    """Images are kept in the widget's turns and in the run log, and sent again when the chat is resumed."""
    from llmlab import Lab
    from llmlab.widgets import Chat, Inspector

    monkeypatch.setenv("LLMLAB_DATA", str(tmp_path))
    monkeypatch.setenv("LLMLAB_RUN_LOG", "images")  # the log keeps hashes by default
    lab = Lab()
    lab._models[vision.name] = vision
    lab._current = vision.name
    chat = Chat(lab=lab, temperature=0, max_tokens=4)
    assert chat.lab_state["models"][0]["no_images"] == ""
    first = chat.send("What is this?", files=[{"name": "red.png", "image": data_url(png("red"))}])
    assert first.messages[-1].images == (png("red"),)
    assert "red&#46;png" in chat.markdown()
    assert "base64" not in chat.markdown()
    assert "data:image/jpeg;base64," in chat.html()  # its thumbnail
    assert chat.row()["messages"][0] == {"role": "user", "content": "What is this?"}
    assert "data:image/png" in chat.to_cells()[0]
    compile(chat.to_cells()[0], "cell", "exec")
    again = Chat(lab=lab, resume=True)
    assert again.turns == chat.turns
    assert again._messages()[0].images == (png("red"),)
    again.send("And now?")
    with pytest.raises(UnsupportedError, match="has an image"):
        Inspector(first, lab=lab).again()
    with pytest.raises(BadInputError, match="data: URL"):
        chat.send("x", files=[{"name": "x.png", "image": "data:image/svg+xml;base64,PHN2Zz4="}])
    for one in (chat, again):
        one.close()
    lab.runlog.close()
