"""Read an adapter's metadata: a PEFT folder (adapter_config.json and safetensors) or a GGUF adapter file.

Formats: PEFT's checkpoint layout (https://huggingface.co/docs/peft/developer_guides/checkpoint); llama.cpp's
`adapter.*` keys and `<tensor>.lora_a`, `<tensor>.lora_b` (src/llama-adapter.cpp). Only headers are read.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from llmlab.config import exists
from llmlab.errors import BadInputError, LoadError, UnsupportedError
from llmlab.files import gguf, jsonfile, safetensors
from llmlab.files.gguf import TensorInfo
from llmlab.files.jsonfile import Fields, read_optional

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
_PICKLES = ("adapter_model.bin", "adapter_model.pt", "adapter_model.pth")
_PREFIX = "base_model.model."
# PEFT writes `lora_A.weight`; a state dict saved by other means keeps the adapter's name (`lora_A.default.weight`) and
# the wrappers of torch.compile, FSDP and activation checkpointing.
_MATRIX = re.compile(r"(?P<module>.+)\.lora_(?P<side>[AB])(?:\.(?P<adapter>[^.]+))?\.weight")
_WRAPPERS = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
_EMBEDDINGS = ("embed_tokens", "lm_head", "token_adapter", "lora_embedding")
_FLOATS = frozenset({"F64", "F32", "F16", "BF16"})
# The matrix types that llama.cpp supports in adapters.
_GGUF_TYPES = frozenset({"F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"})
_MOST_PATTERNS = 10_000
# Initialisations that leave the base's weights unchanged; the others modify the base.
_PLAIN_INITS = ("gaussian", "eva", "orthogonal", "mica", "lora_ga")


@dataclass(frozen=True, slots=True)
class Pair:
    """The two matrices of one module.

    Attributes:
        a: shape of A, (rank, inputs).
        b: shape of B, (outputs, rank).
        scaling: the product's factor: alpha / rank, or as configured.
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
    """An adapter's metadata, from its files' headers.

    Attributes:
        path: the PEFT folder, or the GGUF file.
        modules: the changed modules by name: `model.layers.0.self_attn.q_proj` (PEFT) or
            `blk.0.attn_q.weight` (GGUF).
        base: the name or path of the model it was trained on, or "".
        architecture: a GGUF file's `general.architecture`; "" for PEFT.
        digest: SHA-256 (hex) of everything that determines its effect.
        facts: properties for display: name -> value.
        plain: laid out as PEFT saves it, with one rank and one factor for all modules, so that an engine can read
            the PEFT folder as it is.
    """

    path: Path
    format: Literal["peft", "gguf"]
    modules: Mapping[str, Pair]
    base: str
    architecture: str
    digest: str
    facts: Mapping[str, str] = field(default_factory=dict)
    plain: bool = True

    @property
    def rank(self) -> int:
        """The largest rank of its modules."""
        return max((pair.rank for pair in self.modules.values()), default=0)

    @property
    def weights(self) -> Path:
        """The file with the tensors."""
        return self.path / WEIGHTS if self.format == "peft" else self.path

    @property
    def targets(self) -> tuple[str, ...]:
        """The kinds of modules it changes: `q_proj`, `v_proj`, ... sorted."""
        return tuple(sorted({kind_of(name) for name in self.modules}))


def kind_of(module: str) -> str:
    """The kind of a module: `q_proj` for `model.layers.0.self_attn.q_proj`, `attn_q` for `blk.0.attn_q.weight`."""
    return module.removesuffix(".weight").rsplit(".", 1)[-1]


def read(path: Path) -> AdapterFiles:
    """Read an adapter's metadata.

    Args:
        path: a PEFT folder or a GGUF file.

    Raises:
        BadInputError: the path doesn't exist, or isn't an adapter.
        LoadError: the files are invalid.
        UnsupportedError: pickles, or an adapter that isn't plain LoRA.
    """
    if not exists(path):
        raise BadInputError(f"There is no adapter {path}.", "Pass a PEFT folder, a GGUF adapter file, or hf:org/name.")
    if path.is_dir():
        return _peft(path)
    if path.suffix in (".bin", ".pt", ".pth", ".ckpt", ".pkl"):
        raise _pickled(path.parent, [path.name])
    if path.suffix == ".safetensors":
        raise BadInputError(
            f"{path} has an adapter's weights without its configuration.",
            f"Pass the folder that also has {CONFIG}: {path.parent}",
        )
    return _gguf(path)


def _pickled(folder: Path, names: list[str]) -> UnsupportedError:
    return UnsupportedError(
        f"{folder} has the adapter only as a pickle ({', '.join(names)}), which can run any code when it is loaded.",
        "If you trust it, load it with peft and save it again: model.save_pretrained(folder) writes safetensors.",
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
    tensors = {one.name: one for one in safetensors.read(weights)}
    _refuse_added(folder, config, tensors)
    modules = _pairs(folder, config, tensors)
    digest = hashlib.sha256(b"llmlab lora 1\n")
    shaping = {key: config.get(key) for key in ("r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern")}
    digest.update(json.dumps(shaping, sort_keys=True).encode())
    with weights.open("rb") as file:
        while block := file.read(2**22):
            digest.update(block)
    base = config.get("base_model_name_or_path")
    named = all(pair.names == _names(module) for module, pair in modules.items())
    patterned = bool(config.get("rank_pattern") or config.get("alpha_pattern"))
    targets = config.get("target_modules")
    return AdapterFiles(
        folder,
        "peft",
        modules,
        base if isinstance(base, str) else "",
        "",
        digest.hexdigest(),
        _card(config),
        plain=named and not patterned and bool(targets),
    )


def _names(module: str) -> tuple[str, str]:
    """PEFT's names of a module's matrices."""
    return f"{_PREFIX}{module}.lora_A.weight", f"{_PREFIX}{module}.lora_B.weight"


def _config(folder: Path) -> Fields:
    file = folder / CONFIG
    if not file.is_file():
        what = "It is a model folder: load it with %llm load." if (folder / "config.json").is_file() else ""
        found = sorted(one.name for one in folder.glob("*.gguf"))
        if found:
            what = f"It has GGUF files: pass one of them, for example {folder / found[0]}."
        raise BadInputError(
            f"{folder} is not an adapter: it has no {CONFIG}.", what or "PEFT's save_pretrained writes one."
        )
    config = Fields(jsonfile.read(file), file)
    kind = (config.text("peft_type") or "").upper()
    if kind != "LORA":
        raise UnsupportedError(f"{folder} is an adapter of type {kind or 'unknown'}.", "llmlab supports only LoRA.")
    if not config.count("r") or config.get("lora_alpha") is None:
        values = f"{config.get('r')!r} and {config.get('lora_alpha')!r}"
        raise LoadError(f"{file} must have a rank 'r' of 1 or more and a 'lora_alpha'; it has {values}.")
    config.number("lora_alpha")
    ranks = config.table("rank_pattern")
    for key in ranks:
        ranks.count(key)
    _refuse_kinds(folder, config)
    return config


def _refuse_kinds(folder: Path, config: Mapping[str, Any]) -> None:
    """Refuse variants of LoRA that neither engine supports."""
    init = config.get("init_lora_weights")
    problems = {
        "DoRA (use_dora)": config.get("use_dora"),
        "biases (bias, lora_bias)": config.get("lora_bias") or config.get("bias", "none") not in ("none", None),
        "activated LoRA (alora_invocation_tokens)": config.get("alora_invocation_tokens"),
        "replicated layers (layer_replication)": config.get("layer_replication"),
        "block-diagonal LoRA (use_bdlora)": config.get("use_bdlora"),
        "QALoRA (use_qalora)": config.get("use_qalora"),
        "expert weights (target_parameters)": config.get("target_parameters"),
        "sampled matrices (monteclora_config)": config.get("monteclora_config"),
        "routing between adapters (arrow_config)": config.get("arrow_config"),
        "KaSA (kasa_config)": config.get("kasa_config"),
        f"a changed base (init_lora_weights={init!r})": isinstance(init, str) and init.lower() not in _PLAIN_INITS,
    }
    found = [what for what, there in problems.items() if there]
    if found:
        raise _not_plain(folder, found)


def _not_plain(folder: Path, found: list[str]) -> UnsupportedError:
    return UnsupportedError(
        f"{folder.name} isn't plain LoRA: it has {', '.join(found)}, which the engines don't support.",
        "Train it without that, or merge it into the weights (peft: merge_and_unload) and load the result as a model.",
    )


def _refuse_added(folder: Path, config: Fields, tensors: Mapping[str, TensorInfo]) -> None:
    """Refuse tensors other than the two matrices of a module, with a specific error for each kind."""
    # PEFT saves the base's own weights next to the matrices of an embedding.
    saved = [name for name in tensors if not _MATRIX.fullmatch(name) and not name.endswith(".base_layer.weight")]
    grown = [name for name in saved if any(part in name for part in _EMBEDDINGS)]
    if grown or config.get("trainable_token_indices"):
        rows = max((max(tensors[name].shape, default=0) for name in grown), default=0)
        added = len(read_optional(folder / "added_tokens.json"))
        what = f"{added} added tokens" if added else f"an embedding of {rows} rows" if rows else "trained tokens"
        raise UnsupportedError(
            f"{folder.name} changes the vocabulary's embeddings ({what}); the engines apply only the layers' matrices, "
            "so the tokens would be lost.",
            "Merge it into the weights instead (peft: merge_and_unload) and load the result as a model.",
        )
    kinds = {
        "DoRA (lora_magnitude_vector)": [name for name in saved if ".lora_magnitude_vector" in name],
        "biases (lora_B.bias)": [name for name in saved if name.endswith(".bias")],
    }
    kinds["tensors of an unknown kind ({})"] = [
        name for name in saved if ".lora_" in name and not any(name in names for names in kinds.values())
    ]
    if any(kinds.values()):
        raise _not_plain(folder, [kind.format(kind_of(names[0])) for kind, names in kinds.items() if names])
    if saved or config.get("modules_to_save"):
        names = sorted({kind_of(name) for name in saved}) or list(config.texts("modules_to_save"))
        raise UnsupportedError(
            f"{folder.name} includes complete modules ({', '.join(names)}), which the engines don't attach.",
            "Merge it into the weights instead (peft: merge_and_unload) and load the result as a model.",
        )


def _pairs(folder: Path, config: Fields, tensors: Mapping[str, TensorInfo]) -> dict[str, Pair]:
    found: dict[str, dict[str, str]] = {}
    adapters: dict[str, None] = {}
    for name in tensors:
        match = _MATRIX.fullmatch(name)
        if match is None:
            continue
        module = match["module"].removeprefix(_PREFIX)
        for wrapper in _WRAPPERS:
            module = module.replace(wrapper, "")
        adapters[match["adapter"] or ""] = None
        found.setdefault(module, {})[match["side"]] = name
    if not found:
        raise LoadError(f"{folder / WEIGHTS} has no LoRA matrices (lora_A, lora_B).", "Save the adapter again.")
    if len(adapters) > 1:
        named = ", ".join(name or "one without a name" for name in adapters)
        raise UnsupportedError(
            f"{folder / WEIGHTS} has several adapters ({named}).",
            "Save each in its own folder: model.save_pretrained(folder, selected_adapters=[name]).",
        )
    alphas = _alphas(folder, config)
    rslora = bool(config.get("use_rslora"))
    out = {}
    for module, names in sorted(found.items()):
        if len(names) != 2:
            raise LoadError(
                f"{folder / WEIGHTS} has only one of the two matrices of {module}.", "Save the adapter again."
            )
        a, b = tensors[names["A"]], tensors[names["B"]]
        if len(a.shape) != 2 or len(b.shape) != 2 or a.shape[0] != b.shape[1] or 0 in (*a.shape, *b.shape):
            raise LoadError(
                f"{folder / WEIGHTS}: the matrices of {module}, {a.shape} and {b.shape}, don't fit each other."
            )
        if not {a.dtype, b.dtype} <= _FLOATS:
            raise UnsupportedError(f"{folder / WEIGHTS} stores {module} as {a.dtype} and {b.dtype}, not as floats.")
        rank = a.shape[0]
        out[module] = Pair(
            a.shape, b.shape, alphas(module) / (math.sqrt(rank) if rslora else rank), (names["A"], names["B"])
        )
    return out


def _alphas(folder: Path, config: Fields) -> Callable[[str], float]:
    """Each module's alpha: that of the first `alpha_pattern` that matches the end of its name, else `lora_alpha`.

    PEFT treats the keys as regular expressions. They are untrusted, so they are matched with Rust's regex (through
    pydantic), which takes linear time; Python's could hang.
    """
    from pydantic_core import SchemaError, SchemaValidator, core_schema

    table = config.table("alpha_pattern")
    if len(table) > _MOST_PATTERNS:
        raise LoadError(f"{folder / CONFIG} has {len(table):,} keys in alpha_pattern.", "Fetch the adapter again.")
    patterns = []
    for key in table:
        try:
            schema = core_schema.str_schema(pattern=rf"^(.*\.)?({key})$", regex_engine="rust-regex")
            patterns.append((SchemaValidator(schema), table.number(key)))
        except SchemaError:
            raise UnsupportedError(
                f"{folder.name} has an alpha_pattern that can't be matched: {key!r:.80}.",
                "Look-around and back-references aren't supported; name the modules instead.",
            ) from None
    default = config.number("lora_alpha")
    return lambda module: next((alpha for one, alpha in patterns if one.isinstance_python(module)), default)


def _card(config: Fields) -> dict[str, str]:
    return {"rank": str(config["r"]), "alpha": f"{config.number('lora_alpha'):g}"}


# -- GGUF ----------------------------------------------------------------------------------------


def _gguf(path: Path) -> AdapterFiles:
    head = gguf.read(path)
    keys = Fields(head.keys, path)
    if keys.get("general.type") != "adapter":
        raise BadInputError(
            f"{path} is a GGUF file of a {keys.get('general.type', 'model')!s:.60}, not of an adapter.",
            "Load a model with %llm load; llama.cpp's convert_lora_to_gguf.py makes GGUF adapters.",
        )
    if keys.get("adapter.type") != "lora":
        raise UnsupportedError(
            f"{path} is an adapter of type {keys.get('adapter.type')!r:.60}.", "llmlab supports only LoRA."
        )
    if any(key.startswith("adapter.alora") for key in keys):
        raise UnsupportedError(f"{path} is an activated LoRA (aLoRA).", "llmlab supports only plain LoRA.")
    strange = [one for one in head.tensors if one.dtype not in _GGUF_TYPES]
    if strange:
        raise LoadError(
            f"{path} stores {strange[0].name!r} as {strange[0].dtype}, which isn't a supported matrix type."
        )
    shapes = {one.name: one.shape for one in head.tensors}
    alpha = keys.number("adapter.lora.alpha")
    modules = {}
    for name in sorted(shapes):
        module, dot, _ = name.rpartition(".lora_a")
        if not dot:
            continue
        b = shapes.get(f"{module}.lora_b")
        if b is None:
            raise LoadError(f"{path} has only one of the two matrices of {module}.", "Convert it again.")
        a = shapes[name]
        if len(a) != 2 or len(b) != 2 or 0 in (*a, *b):
            raise LoadError(f"{path}: the matrices of {module}, {a} and {b}, don't fit each other.")
        rank = a[0] if not module.startswith("token_embd") else b[-1]
        modules[module] = Pair(a, b, alpha / rank if alpha else 1.0, (name, f"{module}.lora_b"))
    if not modules:
        raise LoadError(f"{path} has no LoRA matrices (*.lora_a, *.lora_b).", "Convert it again.")
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
        keys.text("general.architecture") or "",
        digest.hexdigest(),
        facts,
    )
