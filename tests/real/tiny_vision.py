"""Tiny vision models with random weights in real architectures, as folders, GGUF files and projectors.

python -m tests.real.tiny_vision [NAME ...]
"""

import io
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.real import fetch
from tests.real.families import FAMILIES

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ m.role }}: {% if m.content is string %}{{ m.content }}{% else %}"
    "{% for part in m.content %}{{ 'MARK' if part.type == 'image' else part.text }}{% endfor %}{% endif %}\n"
    "{% endfor %}assistant:"
)
_SHAPE = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
NAMES = ("idefics3", "qwen25vl", "gemma3")


def folder_of(name):
    return fetch.home() / "models" / f"vision-{name}"


@fetch.once
def files(name):
    """A model's folder, its GGUF file and its projector, made if needed."""
    folder = folder_of(name)
    if not (folder / "config.json").is_file():
        with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
            made = Path(scratch) / "model"
            {"idefics3": _idefics3, "qwen25vl": _qwen25vl, "gemma3": _gemma3}[name](made)
            made.rename(folder)
    place = folder.with_name(f"vision-{name}-gguf")
    place.mkdir(exist_ok=True)
    model, projector = place / f"{name}-f32.gguf", place / f"mmproj-{name}-f32.gguf"
    for target, more in ((model, ()), (projector, ("--mmproj",))):
        if not target.is_file():
            part = target.with_suffix(".part")
            script = fetch.sources() / "convert_hf_to_gguf.py"
            command = [sys.executable, str(script), str(folder), "--outfile", str(part), "--outtype", "f32", *more]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                raise RuntimeError((done.stderr or done.stdout).strip().splitlines()[-1])
            made = next(place.glob("*.part"))
            made.rename(target)
    return folder, model, projector


def _save(model, parts, folder, mark):
    """Save a model with its tokenizer and image processor (or the processor that has both)."""
    import torch
    from safetensors.torch import load_file, save_file

    for part in parts:
        for one in (part, getattr(part, "tokenizer", part)):
            if hasattr(one, "chat_template"):
                one.chat_template = TEMPLATE.replace("MARK", mark)
    model.to(torch.float32).save_pretrained(folder)
    for part in parts:
        part.save_pretrained(folder)
    # The names in published checkpoints, which llama.cpp's converter knows; transformers 5 writes others.
    file = folder / "model.safetensors"
    named = {_published(name): tensor for name, tensor in load_file(file).items()}
    save_file(named, file, {"format": "pt"})


def _published(name):
    if name.startswith("vision_tower.") and ".vision_model." not in name:
        return name.replace("vision_tower.", "vision_tower.vision_model.")
    return name


def _tokenizer(npm):
    from transformers import AutoTokenizer

    family = next(one for one in FAMILIES if one.npm == npm)
    return AutoTokenizer.from_pretrained(fetch.tokenizer(family))


def _idefics3(folder):
    """SmolVLM's architecture with SmolLM2's tokenizer."""
    import torch
    from transformers import (
        AutoTokenizer,
        Idefics3Config,
        Idefics3ForConditionalGeneration,
        Idefics3ImageProcessorPil,
        Idefics3Processor,
    )

    from llmlab.loading.retrieval import resolve

    tokenizer = AutoTokenizer.from_pretrained(resolve("smollm2-135m", engine="vllm").path)
    rows = [f"<row_{row}_col_{col}>" for row in range(1, 7) for col in range(1, 7)]
    marks = ["<image>", "<fake_token_around_image>", "<global-img>", *rows, "<end_of_utterance>"]
    tokenizer.add_special_tokens({"additional_special_tokens": marks})
    text = {"model_type": "llama", "vocab_size": 49280, "num_key_value_heads": 2, "head_dim": 32, "bos_token_id": 1}
    text |= {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": 2, "max_position_embeddings": 2048}
    text |= {"architectures": ["LlamaForCausalLM"]}  # as in SmolVLM's config: what the converter goes by
    config = Idefics3Config(
        pad_token_id=2,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        scale_factor=2,
        vision_config={**_SHAPE, "image_size": 56, "patch_size": 14},
        text_config={**_SHAPE, **text},
    )
    torch.manual_seed(0)
    images = Idefics3ImageProcessorPil(
        size={"longest_edge": 112}, max_image_size={"longest_edge": 56}, do_image_splitting=True
    )
    processor = Idefics3Processor(image_processor=images, tokenizer=tokenizer, image_seq_len=4)
    _save(Idefics3ForConditionalGeneration(config), [processor], folder, "<image>")


def _qwen25vl(folder):
    import torch
    from transformers import (
        Qwen2_5_VLConfig,
        Qwen2_5_VLForConditionalGeneration,
        Qwen2VLImageProcessorPil,
    )

    tokenizer = _tokenizer("qwen3")
    ids = {name: tokenizer.convert_tokens_to_ids(f"<|{name}|>") for name in ("image_pad", "video_pad")}
    ids |= {name: tokenizer.convert_tokens_to_ids(f"<|{name}|>") for name in ("vision_start", "vision_end")}
    text = {**_SHAPE, "vocab_size": 151936, "num_key_value_heads": 2, "max_position_embeddings": 2048}
    text |= {"rope_scaling": {"type": "mrope", "mrope_section": [4, 6, 6]}, "tie_word_embeddings": True}
    text |= {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id}
    vision = {"depth": 4, "hidden_size": 64, "intermediate_size": 128, "num_heads": 2, "out_hidden_size": 64}
    vision |= {"fullatt_block_indexes": [3], "patch_size": 14, "window_size": 56}
    config = Qwen2_5_VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=ids["image_pad"],
        video_token_id=ids["video_pad"],
        vision_start_token_id=ids["vision_start"],
        vision_end_token_id=ids["vision_end"],
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    images = Qwen2VLImageProcessorPil(min_pixels=56 * 56, max_pixels=28 * 28 * 16)
    # Its processor needs torchvision, for videos; llama.cpp's converter reads the image processor's settings only.
    mark = "<|vision_start|><|image_pad|><|vision_end|>"
    _save(Qwen2_5_VLForConditionalGeneration(config), [tokenizer, images], folder, mark)


def _gemma3(folder):
    import torch
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration, Gemma3ImageProcessorPil, Gemma3Processor

    tokenizer = _tokenizer("gemma3")
    text = {**_SHAPE, "vocab_size": 262208, "num_key_value_heads": 1, "head_dim": 32, "sliding_window": 512}
    text |= {"max_position_embeddings": 2048, "query_pre_attn_scalar": 32}
    config = Gemma3Config(
        text_config=text,
        vision_config={**_SHAPE, "image_size": 56, "patch_size": 14},
        mm_tokens_per_image=4,
        boi_token_index=tokenizer.convert_tokens_to_ids("<start_of_image>"),
        eoi_token_index=tokenizer.convert_tokens_to_ids("<end_of_image>"),
        image_token_index=tokenizer.convert_tokens_to_ids("<image_soft_token>"),
    )
    torch.manual_seed(0)
    images = Gemma3ImageProcessorPil(size={"height": 56, "width": 56}, image_seq_length=4)
    processor = Gemma3Processor(images, tokenizer, image_seq_length=4)
    model = Gemma3ForConditionalGeneration(config)
    torch.nn.init.normal_(model.model.multi_modal_projector.mm_input_projection_weight, std=0.5)  # zeros at first
    _save(model, [processor], folder, "<start_of_image>")


class Reference:
    """What transformers answers, in float32."""

    def __init__(self, folder):
        import torch
        from transformers import AutoImageProcessor, AutoModelForImageTextToText, AutoProcessor, AutoTokenizer

        self._model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        self._qwen = "qwen" in folder.name
        self._images = AutoImageProcessor.from_pretrained(folder, backend="pil") if self._qwen else None
        self._processor = None if self._qwen else AutoProcessor.from_pretrained(folder)

    def merge(self, adapter):
        """Add a PEFT adapter with alpha 2 r to the weights."""
        from safetensors.torch import load_file

        tensors = load_file(adapter / "adapter_model.safetensors")
        for name, a in tensors.items():
            if ".lora_A." in name:
                module = self._model.get_submodule(name.removeprefix("base_model.model.").partition(".lora_A")[0])
                module.weight.data += 2 * tensors[name.replace("lora_A", "lora_B")] @ a

    def answer(self, images, text, count):
        """The greedy tokens, the log probability of each, and the number of prompt tokens."""
        import torch
        from PIL import Image

        shown = [Image.open(io.BytesIO(image)).convert("RGB") for image in images]
        parts = [*({"type": "image"} for _ in shown), {"type": "text", "text": text}]
        messages = [{"role": "user", "content": parts}]
        prompt = self._tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        if self._qwen:
            read = self._images(images=shown, return_tensors="pt")
            for grid in read["image_grid_thw"]:
                prompt = prompt.replace("<|image_pad|>", "<|video_pad|>" * int(grid.prod() // 4), 1)
            prompt = prompt.replace("<|video_pad|>", "<|image_pad|>")
            inputs = self._tokenizer(prompt, return_tensors="pt", add_special_tokens=False)
            inputs.update(read)
            inputs["mm_token_type_ids"] = (inputs["input_ids"] == self._model.config.image_token_id).long()
        else:
            inputs = self._processor(text=prompt, images=shown, return_tensors="pt", add_special_tokens=False)
        start = inputs.input_ids.shape[1]
        with torch.no_grad():
            out = self._model.generate(
                **inputs, max_new_tokens=count, min_new_tokens=count, do_sample=False, output_logits=True,
                return_dict_in_generate=True,
            )  # fmt: skip
        ids = out.sequences[0, start:].tolist()
        rows = [torch.log_softmax(row[0].float(), -1) for row in out.logits]
        return ids, [float(row[token]) for row, token in zip(rows, ids, strict=True)], start


if __name__ == "__main__":
    for wanted in sys.argv[1:] or NAMES:
        try:
            files(wanted)
            print(f"{wanted}: ready")
        except (OSError, RuntimeError, subprocess.CalledProcessError) as error:
            print(f"{wanted}: {error}")
