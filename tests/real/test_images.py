"""Images in llama.cpp, on tiny random models of three architectures, against transformers in float32 and vLLM."""

import contextlib
import io
import subprocess
import threading
import time

import pytest

from llmlab.errors import BadInputError, GenerationError, LlmLabError, UnsupportedError
from llmlab.files import vision
from llmlab.types import Message
from tests.real import tiny_vision

QUESTION = "What is it?"


def png(*colours, size=(112, 84)):
    """A picture of vertical stripes."""
    from PIL import Image

    out = io.BytesIO()
    picture = Image.new("RGB", size, colours[0])
    width = size[0] // len(colours)
    for place, colour in enumerate(colours):
        picture.paste(colour, (place * width, 0, (place + 1) * width, size[1]))
    picture.save(out, "PNG")
    return out.getvalue()


def asks(*images, text=QUESTION):
    return [Message("user", text, images=images)]


@pytest.fixture(scope="module")
def lab():
    from llmlab import Lab

    made = Lab()
    yield made
    made.close()


def load(lab, name, **options):
    try:
        _, gguf, _ = tiny_vision.files(name)
    except (OSError, subprocess.CalledProcessError, RuntimeError) as error:
        pytest.skip(f"{name} can't be made: {error}")
    key = name if not options else f"{name}-{len(lab.models)}"
    return lab.models.get(key) or lab.load(str(gguf), engine="llamacpp", ctx=1024, name=key, **options)


@pytest.fixture(params=tiny_vision.NAMES)
def seer(request, lab):
    return load(lab, request.param)


@pytest.fixture
def smolvlm(lab):
    return load(lab, "idefics3")


@pytest.mark.parametrize("name", tiny_vision.NAMES)
def test_it_sees_what_transformers_sees(lab, name):
    seer = load(lab, name)
    reference = tiny_vision.Reference(tiny_vision.folder_of(name))
    # Sizes that nobody has to change: llama.cpp resizes in its own way.
    size = (56, 56) if name == "gemma3" else (112, 112)
    red, green, black = (png(*colours, size=size) for colours in (("red", "blue"), ("green",), ("white", "black")))
    for images in ([red], [green], [red, black]):
        done = seer.generate(asks(*images), temperature=0, max_tokens=6, logprobs=1, ignore_eos=True)
        ids, logprobs, prompt = reference.answer(images, QUESTION, 6)
        assert done.usage.prompt_tokens == prompt
        assert list(done.choices[0].token_ids) == ids
        assert [one.logprob for one in done.choices[0].logprobs] == pytest.approx(logprobs, abs=0.01)


@pytest.mark.parametrize(("name", "size"), [("idefics3", (112, 84)), ("gemma3", (56, 56))])
def test_both_engines_read_the_same_prompt(lab, name, size):
    seer = load(lab, name)
    vllm = lab.load(str(tiny_vision.folder_of(name)), engine="vllm", ctx=1024, name="vl", extra={"dtype": "float32"})
    try:
        for images in ([], [png("red", size=size)], [png("red", size=size), png("blue", size=size)]):
            ours, theirs = (
                one.generate(asks(*images), temperature=0, max_tokens=4, ignore_eos=True) for one in (seer, vllm)
            )
            assert ours.usage.prompt_tokens == theirs.usage.prompt_tokens
            assert ours.choices[0].token_ids == theirs.choices[0].token_ids
    finally:
        vllm.unload()


def test_the_answer_depends_on_the_image(seer):
    first, other, again = (
        seer.generate(asks(png(colour)), temperature=0, max_tokens=1, logprobs=0).choices[0].logprobs[0].logprob
        for colour in ("red", "white", "red")
    )
    assert first == pytest.approx(again, abs=1e-4)
    assert abs(first - other) > 1e-6


def test_a_conversation_reuses_the_image_but_never_a_stale_one(seer):
    turns = asks(png("red"))
    first = seer.generate(turns, temperature=0, max_tokens=4, ignore_eos=True)
    more = [*turns, first.message, Message("user", "And now?")]
    warm = seer.generate(more, temperature=0, max_tokens=6, ignore_eos=True, logprobs=0)
    assert warm.usage.cached_tokens >= first.usage.prompt_tokens - 2
    # The same texts with another image: nothing behind the image may be reused.
    other = [Message("user", QUESTION, images=(png("blue"),)), *more[1:]]
    cold = seer.generate(other, temperature=0, max_tokens=6, ignore_eos=True, logprobs=0)
    assert cold.usage.cached_tokens < 12
    seer.generate("x " * 300, max_tokens=1)
    seer.generate([Message("user", "y " * 200)] * 1, max_tokens=1, n=8)  # every slot holds something else now
    fresh = seer.generate(other, temperature=0, max_tokens=6, ignore_eos=True, logprobs=0)
    assert fresh.choices[0].token_ids == cold.choices[0].token_ids


def test_images_texts_guides_and_streams_in_one_batch(smolvlm):
    images = [png(colour) for colour in ("red", "green", "blue", "white")]
    prompts = [asks(image) for image in images] + [[Message("user", f"Text {i}")] for i in range(4)]
    options = {"temperature": 0, "max_tokens": 12, "ignore_eos": True}
    alone = [smolvlm.generate(prompt, **options) for prompt in prompts]
    together = smolvlm.generate(prompts, **options)
    same = [one.choices[0].token_ids == other.choices[0].token_ids for one, other in zip(alone, together, strict=True)]
    assert all(same), same
    guided = smolvlm.generate([asks(image) for image in images], choice=["red", "blue"], temperature=0)
    assert {one.text for one in guided} <= {"red", "blue"}
    streamed = "".join(chunk.text for chunk in smolvlm.stream(asks(images[0]), **options))
    assert streamed == alone[0].text


def test_penalties_take_an_image_for_its_placeholder(smolvlm):
    done = smolvlm.generate(
        asks(png("red")), temperature=0, max_tokens=8, repetition_penalty=1.3, dry_multiplier=0.8, ignore_eos=True
    )
    assert len(done.choices[0].token_ids) == 8


def test_n_answers(smolvlm):
    done = smolvlm.generate(asks(png("red")), n=3, seed=1, temperature=1, max_tokens=4, ignore_eos=True)
    assert len({choice.token_ids for choice in done.choices}) > 1


def test_cancelling_before_during_and_after_the_image(smolvlm):
    for wait in (0, 0.01, 0.05, None):
        stream = smolvlm.stream(asks(*[png("red", "blue", size=(112, 112))] * 4), max_tokens=600, ignore_eos=True)
        stream.start()
        if wait is None:
            next(iter(stream))
        else:
            time.sleep(wait)
        stream.cancel()
        assert stream.partial().finish_reason == "interrupted"
    assert smolvlm.generate(asks(png("red")), max_tokens=2).usage.completion_tokens
    assert smolvlm.in_flight == 0


def _threads():
    return {one.ident for one in threading.enumerate() if one.name.startswith("llmlab-llamacpp-images")}


def test_unloading_while_images_wait(lab):
    before = _threads()
    seer = load(lab, "idefics3", max_concurrency=2)
    streams = [seer.stream(asks(png("red", size=(112 + i, 112))), max_tokens=200, ignore_eos=True) for i in range(6)]
    for stream in streams:
        stream.start()
    lab.unload(seer.name)
    assert {stream.partial().finish_reason for stream in streams} <= {"interrupted", "stop", "length"}
    assert _threads() == before


def _bomb():
    from PIL import Image

    out = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(out, "PNG")
    return out.getvalue()


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 40, "Can't read an image"),
        (png("red")[:-30], "Can't read an image"),
        (_bomb(), "pixels"),
    ],
)
def test_images_that_are_refused(smolvlm, image, reason):
    with pytest.raises(GenerationError, match=reason):
        smolvlm.generate(asks(image), max_tokens=1)
    assert smolvlm.generate("Still here?", max_tokens=1).usage.completion_tokens == 1


def test_an_image_is_shown_upright_and_on_white():
    from PIL import Image

    from llmlab.engines import pictures

    out = io.BytesIO()
    Image.new("RGBA", (4, 4), (255, 0, 0, 0)).save(out, "PNG")
    assert pictures.read(out.getvalue()).getpixel((0, 0)) == (255, 255, 255)
    turned = Image.new("RGB", (8, 4), "red")
    exif = turned.getexif()
    exif[0x0112] = 6
    out = io.BytesIO()
    turned.save(out, "JPEG", exif=exif)
    assert pictures.read(out.getvalue()).size == (4, 8)


def test_a_place_without_an_image(smolvlm):
    with pytest.raises(GenerationError, match="2 places for images, and 1 image"):
        smolvlm.generate(asks(png("red"), text="Two <image>?"), max_tokens=1)


def test_which_projector(tmp_path):
    model = tmp_path / "seer-7b-Q4_K_M.gguf"
    assert vision.projector(model) is None
    for name in ("mmproj-other-f16.gguf", "mmproj-seer-7b-f32.gguf", "mmproj-seer-7b-f16.gguf", "seer-7b-Q8_0.gguf"):
        (tmp_path / name).touch()
    assert vision.projector(model).name == "mmproj-seer-7b-f16.gguf"


def test_without_its_projector(lab):
    seer = load(lab, "idefics3", extra={"mmproj": "none"})
    assert not seer.facts.sees
    with pytest.raises(UnsupportedError, match="mmproj"):
        seer.generate(asks(png("red")))
    with pytest.raises(BadInputError, match="no file"):
        load(lab, "idefics3", extra={"mmproj": "/no/such/file.gguf"})


def test_a_projector_of_another_model(lab):
    load(lab, "gemma3")
    wrong = tiny_vision.files("qwen25vl")[2]
    with pytest.raises(LlmLabError):
        load(lab, "gemma3", extra={"mmproj": str(wrong.parent / "qwen25vl-f32.gguf")})
    assert lab.models["gemma3"].generate("Still here?", max_tokens=1).usage.completion_tokens == 1


@pytest.mark.parametrize("seed", range(6))
def test_a_damaged_projector_never_ends_the_kernel(lab, tmp_path, seed):
    import random

    _, model, projector = tiny_vision.files("idefics3")
    damaged = tmp_path / "mmproj-damaged.gguf"
    data = bytearray(projector.read_bytes())
    chance = random.Random(seed)
    for _ in range(3):
        data[chance.randrange(24, 3000)] = chance.randrange(256)
    damaged.write_bytes(bytes(data) if seed else bytes(data[:2000]))
    with contextlib.suppress(LlmLabError):  # refused with a reason; or the damage hit nothing that matters
        lab.load(str(model), engine="llamacpp", ctx=512, name="damaged", extra={"mmproj": str(damaged)})
    if "damaged" in lab.models:
        assert lab.models["damaged"].generate("Hello", max_tokens=1).usage.completion_tokens == 1
        lab.unload("damaged")
