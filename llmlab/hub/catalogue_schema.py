"""The schema of catalogue.toml and of the user's models.toml, validated by pydantic."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, field_validator, model_validator

from llmlab.errors import BadInputError
from llmlab.files import tags
from llmlab.hub.quant_repo import Kind
from llmlab.types import SamplingParams


class FilesModel(BaseModel):
    """One [[model.files]] table."""

    model_config = ConfigDict(extra="forbid")

    engine: Literal["llamacpp", "vllm"]
    repo: str = Field(pattern=r"^[\w.-]+/[\w.-]+$")
    quants: list[str] = Field(min_length=1)
    file: str | None = None
    revision: str | None = None
    gated: bool | None = None
    sizes: dict[str, PositiveInt] = {}
    projector: str | None = Field(default=None, pattern=r"^[^/\\]+\.gguf$")

    @model_validator(mode="after")
    def _check(self) -> Self:
        for quant in self.quants:
            try:
                tags.canonical(quant, self.engine)
            except BadInputError as error:
                raise ValueError(str(error)) from None
        unlisted = sorted(self.sizes.keys() - set(self.quants))
        if unlisted:
            raise ValueError(f"'sizes' has {unlisted[0]}, which 'quants' doesn't list")
        if self.engine == "llamacpp" and not (self.file and self.file.endswith(".gguf")):
            raise ValueError("llamacpp needs 'file', a GGUF file's name with {quant} in it")
        if self.engine == "llamacpp" and len(self.quants) > 1 and "{quant" not in (self.file or ""):
            raise ValueError("'file' must have {quant} in it when there are several quants")
        if self.engine == "vllm" and self.file is not None:
            raise ValueError("vllm loads the complete folder: leave 'file' out")
        return self


class ShapeModel(BaseModel):
    """A model's sizes, as in its config.json."""

    model_config = ConfigDict(extra="forbid")

    layers: int = Field(gt=0)
    hidden: int = Field(gt=0)
    heads: int = Field(gt=0)
    kv_heads: int = Field(gt=0)
    head_dim: int = Field(gt=0)
    vocabulary: int = Field(gt=0)


class PackageModel(BaseModel):
    """One [[model.packages]] table."""

    model_config = ConfigDict(extra="forbid")

    distribution: str = Field(pattern=r"^[\w.-]+$")
    file: str = Field(pattern=r"^[^/\\].*\.gguf$")
    quant: str

    @field_validator("quant")
    @classmethod
    def _known(cls, value: str) -> str:
        try:
            return tags.canonical(value, tags.native("gguf")).name
        except BadInputError as error:
            raise ValueError(str(error)) from None


class EntryModel(BaseModel):
    """One [[model]] table."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1, max_length=80)
    description: str = ""
    kind: Kind = "chat"
    parameters: int | None = Field(default=None, gt=0, lt=10**15)
    embedding: int = Field(default=0, ge=0, lt=10**15)
    head: int = Field(default=0, ge=0, lt=10**15)
    context_length: int | None = Field(default=None, gt=0, lt=2**31)
    licence: str | None = None
    shape: ShapeModel | None = None
    sampling: dict[str, Any] = {}
    path: str | None = None
    base: str | None = Field(default=None, pattern=r"^[\w.-]+/[\w.-]+$")
    files: list[FilesModel] = []
    packages: list[PackageModel] = []

    @field_validator("name")
    @classmethod
    def _plain(cls, value: str) -> str:
        if any(not (char.isalnum() or char in "._-") for char in value):
            raise ValueError("a name may contain only letters, digits, '.', '_' and '-'")
        return value

    @field_validator("path")
    @classmethod
    def _possible(cls, value: str | None) -> str | None:
        if value is not None and (not value or "\0" in value):
            raise ValueError("a path can't be empty or have a NUL character")
        try:
            Path(value or "").expanduser()
        except RuntimeError:
            raise ValueError(f"the home folder of {value!r:.80} is unknown") from None
        return value

    @field_validator("sampling")
    @classmethod
    def _params(cls, value: dict[str, Any]) -> dict[str, Any]:
        try:
            SamplingParams.of(value)
        except BadInputError as error:
            raise ValueError(str(error)) from None
        return value

    @model_validator(mode="after")
    def _somewhere(self) -> Self:
        if (self.path is None) == (not self.files):
            raise ValueError("give either 'path' (a local folder or GGUF file) or [[model.files]]")
        return self


class Catalogue(BaseModel):
    """The complete file."""

    model_config = ConfigDict(extra="forbid")

    trusted: list[str] = []
    model: list[EntryModel] = []
