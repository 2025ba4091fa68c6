"""What an adapter's files say of it: a PEFT folder (adapter_config.json and safetensors) or a GGUF adapter file.

Formats: PEFT's checkpoint layout (https://huggingface.co/docs/peft/developer_guides/checkpoint); llama.cpp's
`adapter.*` keys and `<tensor>.lora_a`, `<tensor>.lora_b` (src/llama-adapter.cpp). Only headers are read.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from llmlab.errors import BadInputError, LoadError, UnsupportedError
from llmlab.files import gguf, safetensors
from llmlab.files.jsonfile import read_optional

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
_PICKLES = ("adapter_model.bin", "adapter_model.pt", "adapter_model.pth")
_PREFIX = "base_model.model."
# Initial values that PEFT draws without touching the base's weights; the others leave a changed base behind.
_PLAIN_INITS = ("gaussian", "eva", "orthogonal", "mica", "lora_ga")


@dataclass(frozen=True, slots=True)
class Pair:
    """The two matrices of one module.

    Attributes:
        a: shape of A, (rank, inputs).
        b: shape of B, (outputs, rank).
        scaling: what the product is multiplied with, alpha / rank or as the configuration says.
        names: the two tensors' names in the file.
    """

    a: tuple[int, ...]
    b: tuple[int, ...]
    scaling: float
    names: tuple[str, str]

    @property
    def rank(self) -> int:
        """The inner dimension."""
        return self.a[0]


@dataclass(frozen=True, slots=True)
class AdapterFiles:
    """An adapter, from its files' headers.

    Attributes:
        path: the PEFT folder, or the GGUF file.
        modules: the changed modules by their names: `model.layers.0.self_attn.q_proj` (PEFT) or
            `blk.0.attn_q.weight` (GGUF).
        base: the name or path of the model it was trained on, or "".
        architecture: a GGUF file's `general.architecture`; "" for PEFT.
        digest: a hash (SHA-256, hex) of everything that shapes it.
        facts: what a card says of it, for lists: name -> value.
    """

    path: Path
    format: Literal["peft", "gguf"]
    modules: Mapping[str, Pair]
    base: str
    architecture: str
    digest: str
    facts: Mapping[str, str] = field(default_factory=dict)

    @property
    def rank(self) -> int:
        """The largest rank of its modules."""
        return max(pair.rank for pair in self.modules.values())

    @property
    def weights(self) -> Path:
        """The file with the tensors."""
        return self.path / WEIGHTS if self.format == "peft" else self.path

    @property
    def targets(self) -> tuple[str, ...]:
        """The kinds of modules it changes: `q_proj`, `v_proj`, ... sorted."""
        return tuple(sorted({kind_of(name) for name in self.modules}))


def kind_of(module: str) -> str:
    """`q_proj` of `model.layers.0.self_attn.q_proj`; `attn_q` of `blk.0.attn_q.weight`."""
    return module.removesuffix(".weight").rsplit(".", 1)[-1]


def read(path: Path) -> AdapterFiles:
    """Read an adapter.

    Args:
        path: a PEFT folder or a GGUF file.

    Raises:
        BadInputError: there is nothing, or no adapter.
        LoadError: the files are broken.
        UnsupportedError: pickles, or a kind of adapter that is no plain LoRA.
    """
    if path.is_dir():
        return _peft(path)
    if not path.exists():
        raise BadInputError(f"There is no adapter {path}.", "Give a PEFT folder, a GGUF adapter file, or hf:org/name.")
    if path.suffix in (".bin", ".pt", ".pth", ".ckpt", ".pkl"):
        raise _pickled(path.parent, [path.name])
    if path.suffix == ".safetensors":
        raise BadInputError(
            f"{path} is the weights of an adapter without its configuration.",
            f"Give the folder that holds {CONFIG} too: {path.parent}",
        )
    return _gguf(path)


def _pickled(folder: Path, names: list[str]) -> UnsupportedError:
    return UnsupportedError(
        f"{folder} has the adapter only as a pickle ({', '.join(names)}), which can run any code when it is read.",
        "Where you trust it, load it with peft and save it again: model.save_pretrained(folder) writes safetensors.",
    )


# -- PEFT ----------------------------------------------------------------------------------------


def _peft(folder: Path) -> AdapterFiles:
    config = _config(folder)
    weights = folder / WEIGHTS
    if not weights.is_file():
        pickles = [name for name in _PICKLES if (folder / name).is_file()]
        if pickles:
            raise _pickled(folder, pickles)
        raise LoadError(f"{folder} has no {WEIGHTS}.", "Fetch or save the adapter again.")
    tensors = {one.name: one.shape for one in safetensors.read(weights)}
    _refuse_added(folder, config, tensors)
    modules = _pairs(folder, config, tensors)
    digest = hashlib.sha256(b"llmlab lora 1\n")
    shaping = {key: config.get(key) for key in ("r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern")}
    digest.update(json.dumps(shaping, sort_keys=True).encode())
    with weights.open("rb") as file:
        while block := file.read(2**22):
            digest.update(block)
    base = config.get("base_model_name_or_path")
    return AdapterFiles(
        folder, "peft", modules, base if isinstance(base, str) else "", "", digest.hexdigest(), _card(config)
    )


def _config(folder: Path) -> dict[str, Any]:
    file = folder / CONFIG
    if not file.is_file():
        what = "It is a model folder: load it with %llm load." if (folder / "config.json").is_file() else ""
        found = sorted(one.name for one in folder.glob("*.gguf"))
        if found:
            what = f"It holds GGUF files: give one of them, for example {folder / found[0]}."
        raise BadInputError(
            f"{folder} is no adapter: it has no {CONFIG}.", what or "PEFT's save_pretrained writes one."
        )
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise LoadError(f"{file} is not valid JSON: {error}.") from None
    if not isinstance(config, dict):
        raise LoadError(f"{file} must hold a JSON object, not {type(config).__name__}.")
    kind = str(config.get("peft_type", "")).upper()
    if kind != "LORA":
        raise UnsupportedError(f"{folder} is an adapter of type {kind or 'unknown'}.", "llmlab attaches LoRA only.")
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if not isinstance(rank, int) or rank < 1 or not isinstance(alpha, int | float) or not math.isfinite(alpha):
        raise LoadError(f"{file} must say a rank 'r' of 1 or more and a 'lora_alpha'; it says {rank!r} and {alpha!r}.")
    _refuse_kinds(folder, config)
    return config


def _refuse_kinds(folder: Path, config: Mapping[str, Any]) -> None:
    """Refuse what changes the meaning of the two matrices in ways that neither engine follows."""
    init = config.get("init_lora_weights")
    problems = {
        "DoRA (use_dora)": config.get("use_dora"),
        "biases (bias, lora_bias)": config.get("lora_bias") or config.get("bias", "none") not in ("none", None),
        "activated LoRA (alora_invocation_tokens)": config.get("alora_invocation_tokens"),
        "replicated layers (layer_replication)": config.get("layer_replication"),
        "block-diagonal LoRA (use_bdlora)": config.get("use_bdlora"),
        "QALoRA (use_qalora)": config.get("use_qalora"),
        "expert weights (target_parameters)": config.get("target_parameters"),
        f"a changed base (init_lora_weights={init!r})": isinstance(init, str) and init.lower() not in _PLAIN_INITS,
    }
    found = [what for what, there in problems.items() if there]
    if found:
        raise UnsupportedError(
            f"{folder.name} is no plain LoRA: it has {', '.join(found)}, which the engines don't follow.",
            "Train it without, or merge it into the weights (peft: merge_and_unload) and load the result as a model.",
        )


def _refuse_added(folder: Path, config: Mapping[str, Any], tensors: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse tokens that the adapter adds, and whole modules that it brings along."""
    saved = [name for name in tensors if ".lora_" not in name and not name.endswith(".base_layer.weight")]
    embedded = [name for name in tensors if "lora_embedding" in name]
    grown = [n for n in saved if "embed_tokens" in n or "lm_head" in n or "token_adapter" in n] or embedded
    if grown or config.get("trainable_token_indices"):
        rows = max((max(tensors[name]) for name in grown), default=0)
        added = len(read_optional(folder / "added_tokens.json"))
        says = f"{added} added tokens" if added else f"an embedding of {rows} rows" if rows else "trained tokens"
        raise UnsupportedError(
            f"{folder.name} changes the vocabulary's embeddings ({says}); the engines attach matrices of the layers "
            "only, so the tokens would be lost.",
            "Merge it into the weights instead (peft: merge_and_unload) and load the result as a model.",
        )
    if saved or config.get("modules_to_save"):
        names = sorted({kind_of(name) for name in saved}) or [str(one) for one in config["modules_to_save"]]
        raise UnsupportedError(
            f"{folder.name} brings whole modules along ({', '.join(names)}), which the engines don't attach.",
            "Merge it into the weights instead (peft: merge_and_unload) and load the result as a model.",
        )


def _pairs(folder: Path, config: Mapping[str, Any], tensors: Mapping[str, tuple[int, ...]]) -> dict[str, Pair]:
    found: dict[str, dict[str, str]] = {}
    for name in tensors:
        match = re.fullmatch(r"(.+)\.lora_(A|B)(?:\.default)?\.weight", name)
        if match is None:
            continue
        found.setdefault(match.group(1).removeprefix(_PREFIX), {})[match.group(2)] = name
    if not found:
        raise LoadError(f"{folder / WEIGHTS} holds no LoRA matrices (lora_A, lora_B).", "Save the adapter again.")
    out = {}
    for module, names in sorted(found.items()):
        if len(names) != 2:
            raise LoadError(f"{folder / WEIGHTS} has only one of the two matrices of {module}.", "Save it again.")
        a, b = tensors[names["A"]], tensors[names["B"]]
        if len(a) != 2 or len(b) != 2 or a[0] != b[1]:
            raise LoadError(f"{folder / WEIGHTS}: the matrices of {module}, {a} and {b}, don't fit each other.")
        out[module] = Pair(a, b, _scaling(config, module, a[0]), (names["A"], names["B"]))
    return out


def _scaling(config: Mapping[str, Any], module: str, rank: int) -> float:
    """PEFT's factor of a module: alpha / rank, or alpha / sqrt(rank) with use_rslora."""
    alpha = float(config["lora_alpha"])
    for key, value in (config.get("alpha_pattern") or {}).items():
        if re.match(rf"(.*\.)?({key})$", module):
            alpha = float(value)
            break
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _card(config: Mapping[str, Any]) -> dict[str, str]:
    return {"rank": str(config["r"]), "alpha": f"{config['lora_alpha']:g}"}


# -- GGUF ----------------------------------------------------------------------------------------


def _gguf(path: Path) -> AdapterFiles:
    head = gguf.read(path)
    keys = head.keys
    if keys.get("general.type") != "adapter":
        raise BadInputError(
            f"{path} is a GGUF file of a {keys.get('general.type', 'model')}, not of an adapter.",
            "Load a model with %llm load; an adapter comes from llama.cpp's convert_lora_to_gguf.py.",
        )
    if keys.get("adapter.type") != "lora":
        raise UnsupportedError(f"{path} is an adapter of type {keys.get('adapter.type')!r}.", "Only LoRA is attached.")
    if any(key.startswith("adapter.alora") for key in keys):
        raise UnsupportedError(f"{path} is an activated LoRA (aLoRA).", "llmlab attaches plain LoRA only.")
    shapes = {one.name: one.shape for one in head.tensors}
    alpha = float(keys.get("adapter.lora.alpha") or 0)
    modules = {}
    for name in sorted(shapes):
        module, dot, _ = name.rpartition(".lora_a")
        if not dot:
            continue
        b = shapes.get(f"{module}.lora_b")
        if b is None:
            raise LoadError(f"{path} has only one of the two matrices of {module}.", "Convert it again.")
        rank = shapes[name][0] if not module.startswith("token_embd") else b[-1]
        modules[module] = Pair(shapes[name], b, alpha / rank if alpha else 1.0, (name, f"{module}.lora_b"))
    if not modules:
        raise LoadError(f"{path} holds no LoRA matrices (*.lora_a, *.lora_b).", "Convert it again.")
    digest = hashlib.sha256(b"llmlab lora gguf 1\n")
    with path.open("rb") as file:
        while block := file.read(2**22):
            digest.update(block)
    facts = {"rank": str(max(pair.rank for pair in modules.values())), "alpha": f"{alpha:g}"}
    base = keys.get("general.base_model.0.name")
    return AdapterFiles(
        path,
        "gguf",
        modules,
        base if isinstance(base, str) else "",
        str(keys.get("general.architecture", "")),
        digest.hexdigest(),
        facts,
    )
