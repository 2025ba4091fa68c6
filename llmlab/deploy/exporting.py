"""Writes a loaded model's deployment: the files of a target, with notes, checksums and, if asked for, a proof."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmlab import _imports, config
from llmlab._version import __version__
from llmlab.deploy import containers, kubernetes, llama_server, ollama, proof, snapshot
from llmlab.deploy.places import TEMPLATE, local
from llmlab.deploy.servers import LLAMA_SERVER, OLLAMA, VLLM, Server, able, refusal
from llmlab.deploy.snapshot import Snapshot
from llmlab.errors import BadInputError, LoadError, unknown
from llmlab.render.table import Table, View
from llmlab.types.progress import Progress

if TYPE_CHECKING:
    from llmlab.deploy.proof import Proof
    from llmlab.model import Model

RECORD = "export.json"
README = "README.md"
_PROOF = ("proof.json", "proof.md")


@dataclass(frozen=True)
class Export(View):
    """A deployment's files.

    Attributes:
        target: what it is for.
        folder: where the files are.
        files: their names.
        notes: what differs there from the model in the kernel.
        proof: how its answers compare with the kernel's; None: not asked for.
        unproved: if a proof was asked for: why there is none, or what it didn't start; "" otherwise.

    Example:
        >>> import tempfile
        >>> made = llmlab.export(model, "llama-server", out=tempfile.mkdtemp())
        >>> made.files
        ('README.md', 'SHA256SUMS', 'chat_template.jinja', 'export.json', 'models.ini', 'serve.sh')
    """

    target: str
    folder: Path
    files: tuple[str, ...]
    notes: tuple[str, ...] = ()
    proof: Proof | None = None
    unproved: str = ""

    def _table(self) -> Table:
        rows = [("folder", str(self.folder)), ("files", ", ".join(self.files))]
        rows += [("note", note) for note in self.notes]
        if self.proof is not None:
            rows.append(("proof", self.proof.summary))
        if self.unproved:
            rows.append(("not proved here", self.unproved))
        return Table((self.target, ""), rows)

    def text(self) -> str:
        """The folder, its files, the notes and the proof."""
        return self._table().text()

    def html(self) -> str:
        """`text` as a table."""
        return self._table().html()

    __repr__ = View.__repr__


@dataclass(frozen=True, slots=True)
class Target:
    """What an export can be for.

    Attributes:
        name: as users call it.
        summary: one line of help.
        servers: the servers that can run it, for a model in its current form; raises UnsupportedError if none can.
        write: returns the files' texts by name.
        beyond: what a proof of this target doesn't start: it starts the server itself, on this machine.
    """

    name: str
    summary: str
    servers: Callable[[Snapshot], list[Server]]
    write: Callable[[list[Server], Snapshot, Path], dict[str, str]]
    beyond: str = ""


def _only(server: Server) -> Callable[[Snapshot], list[Server]]:
    def find(model: Snapshot) -> list[Server]:
        error = refusal(server, model)
        if error is not None:
            raise error
        return [server]

    return find


def _first(model: Snapshot) -> list[Server]:
    return able(model)[:1]


def _script(server: Server, model: Snapshot, folder: Path) -> str:
    lines = ["#!/bin/sh", f"# {server.name} for {model.name}. Needs: {server.requires}", "set -eu"]
    lines += [f"export {name}={shlex.quote(value)}" for name, value in server.environment(model).items()]
    if server.key:
        lines.append(f"# A key: export {server.key}=... before the start; it is never written here.")
    words = [*server.command(model, local(folder)), "--host", "127.0.0.1", "--port", str(server.port)]
    return "\n".join([*lines, f'exec {shlex.join(words)} "$@"']) + "\n"


def _vllm(servers: list[Server], model: Snapshot, folder: Path) -> dict[str, str]:
    return {"serve.sh": _script(servers[0], model, folder)}


def _llama_server(servers: list[Server], model: Snapshot, folder: Path) -> dict[str, str]:
    return _vllm(servers, model, folder) | {"models.ini": llama_server.preset(model, local(folder))}


def _modelfiles(model: Snapshot, places: Any) -> dict[str, str]:
    idle = {f"Modelfile.{one.name}": ollama.modelfile(model, places, one) for one in model.loras if not one.scale}
    return {"Modelfile": ollama.modelfile(model, places)} | idle


def _ollama(_servers: list[Server], model: Snapshot, folder: Path) -> dict[str, str]:
    create = shlex.join(ollama.create(model, str(folder.absolute() / "Modelfile")))
    return _modelfiles(model, local(folder)) | {"create.sh": f"#!/bin/sh\nset -eu\n{create}\n"}


def _compose(servers: list[Server], model: Snapshot, folder: Path) -> dict[str, str]:
    from llmlab.deploy.places import mounted

    files = {"compose.yaml": _yaml([containers.compose(servers, model, folder)])}
    return files | (_modelfiles(model, mounted(model, folder)) if OLLAMA in servers else {})


def _quadlet(servers: list[Server], model: Snapshot, folder: Path) -> dict[str, str]:
    return {f"llmlab-{containers.slug(model.name)}.container": containers.quadlet(servers[0], model, folder)}


def _kubernetes(servers: list[Server], model: Snapshot, folder: Path) -> dict[str, str]:
    return {
        "kubernetes.yaml": _yaml(kubernetes.objects(servers[0], model, folder)),
        "kserve.yaml": _yaml([kubernetes.kserve(servers[0], model, folder)]),
    }


def _ray(_servers: list[Server], model: Snapshot, folder: Path) -> dict[str, str]:
    return {"ray.yaml": _yaml([kubernetes.ray(model, folder)])}


_CONTAINER = "no container ran: the answers are those of the same command line without one"
TARGETS: dict[str, Target] = {
    one.name: one
    for one in (
        Target("vllm", "a `vllm serve` command line", _only(VLLM), _vllm),
        Target(
            "llama-server", "a llama-server command line, and a preset of models", _only(LLAMA_SERVER), _llama_server
        ),
        Target("ollama", "a Modelfile", _only(OLLAMA), _ollama),
        Target("compose", "Docker compose, with a service per server that can run it", able, _compose, _CONTAINER),
        Target("quadlet", "a unit for Podman and systemd", _first, _quadlet, _CONTAINER),
        Target(
            "kubernetes",
            "a Deployment with its Service, and a KServe InferenceService",
            _first,
            _kubernetes,
            "no cluster was used: the answers are those of the same command line on this machine",
        ),
        Target(
            "ray",
            "a Ray Serve LLM config",
            _only(VLLM),
            _ray,
            "Ray Serve didn't run, and ray.yaml wasn't read: the answers are those of plain `vllm serve` with the same "
            "engine arguments",
        ),
    )
}


def _yaml(documents: list[dict[str, Any]]) -> str:
    _imports.load("yaml")
    import yaml

    return str(yaml.safe_dump_all(documents, sort_keys=False, width=120, allow_unicode=True))


def export(
    model: Model,
    target: str,
    *,
    out: str | Path | None,
    prove: bool,
    gpus: int | None,
    prompts: proof.Prompts,
    progress: Progress | None,
) -> Export:
    """Write a deployment. Arguments and errors as `llmlab.export`; `prompts` are those of the proof."""
    if target not in TARGETS:
        raise unknown("target", target, TARGETS)
    report = progress or (lambda _phase, _fraction: None)
    taken = snapshot.of_model(model, gpus=gpus, progress=report)
    chosen = TARGETS[target]
    servers = chosen.servers(taken)  # refuses before anything is written
    folder = _folder(out, f"{containers.slug(model.name)}-{target}")
    files = chosen.write(servers, taken, folder)
    notes = tuple(note for server in servers for note in server.notes(taken))
    if taken.template is not None:
        files[TEMPLATE] = taken.template
    files["SHA256SUMS"] = "".join(f"{one.sha256}  {one.path}\n" for one in taken.files)
    written = [*files, RECORD, README, *(_PROOF if prove else ())]
    record = {"llmlab": __version__, "target": target, **taken.as_dict(), "notes": list(notes), "written": written}
    _clear(folder)
    _write(folder, {**files, RECORD: json.dumps(record, indent=2) + "\n"})
    found, why = None, ""
    if prove:
        why = proof.refusal(servers[0])
        if not why:
            why = _beyond(chosen, servers)
            found = proof.prove(model, taken, servers[0], folder, prompts, report, unproved=why)
            files |= dict(zip(_PROOF, (found.json(), found.markdown()), strict=True))
    made = Export(target, folder, tuple(sorted([*files, RECORD, README])), notes, found, why)
    files[README] = _readme(made, chosen, servers)
    _write(folder, files)
    return made


def _beyond(target: Target, servers: list[Server]) -> str:
    others = ", ".join(one.name for one in servers[1:])
    return f"{target.beyond}; {others} wasn't started" if others else target.beyond


def _folder(out: str | Path | None, name: str) -> Path:
    folder = Path(out) if out is not None else Path(name)
    if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and not (folder / RECORD).is_file())):
        raise BadInputError(
            f"{folder} exists, and isn't an earlier export.", "Give an empty or a new folder: -o FOLDER"
        )
    return folder


def _clear(folder: Path) -> None:
    """Remove an earlier export's files: a proof of another model, or the script of another target."""
    try:
        written = json.loads((folder / RECORD).read_text(encoding="utf-8"))["written"]
    except (OSError, ValueError, LookupError):
        return
    with config.writing(folder, error=LoadError):
        for name in written:
            if Path(name).name == name:  # in this folder
                (folder / name).unlink(missing_ok=True)


def _write(folder: Path, files: dict[str, str]) -> None:
    with config.writing(folder, error=LoadError):
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (folder / name).write_text(text, encoding="utf-8")
            if name.endswith(".sh"):
                (folder / name).chmod(0o755)


_START = {
    "vllm": "./serve.sh",
    "llama-server": "./serve.sh            # or: llama-server --models-preset models.ini",
    "ollama": "./create.sh           # then: ollama run MODEL",
    "compose": "docker compose up     # other servers: --profile NAME",
    "quadlet": "cp *.container ~/.config/containers/systemd/ && systemctl --user daemon-reload"
    "\nsystemctl --user start NAME           # the file's name without .container",
    "kubernetes": "kubectl apply -f kubernetes.yaml   # or kserve.yaml, with the ConfigMap of kubernetes.yaml",
    "ray": "serve run ray.yaml",
}


def _readme(made: Export, target: Target, servers: list[Server]) -> str:
    lines = [f"# {made.folder.name}: {target.summary}", "", f"Written by llmlab {__version__}.", "", "```text"]
    lines += [_START[made.target], "```", ""]
    lines += [f"Needs: {'; '.join(dict.fromkeys(one.requires for one in servers))}."]
    lines += ["The model's files are referred to, not copied: `sha256sum -c SHA256SUMS` checks that they are the same."]
    if made.target == "kubernetes":
        lines.append(
            f"In a cluster they are on the volume claim `{kubernetes.CLAIM}`: model/, adapters/, draft/; an init "
            "container checks them."
        )
    if made.notes:
        lines += ["", "## What differs from the model in the kernel", "", *(f"- {note}" for note in made.notes)]
    lines += ["", "## Proof", ""]
    if made.proof is not None:
        lines.append(f"{made.proof.summary} See proof.md.")
        if made.unproved:
            lines += ["", f"Not proved here: {made.unproved}."]
    else:
        lines.append(f"Not proved here: {made.unproved or 'it was not asked for (--prove)'}.")
    return "\n".join(lines) + "\n"
