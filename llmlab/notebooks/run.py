"""Runs several notebooks, one after the other; called by `llmlab run`."""

from __future__ import annotations

import glob
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from llmlab.engines.replay.cassette import Cassette
from llmlab.engines.replay.tape import RECORD, REPLAY
from llmlab.errors import BadInputError, LlmLabError, unknown
from llmlab.notebooks import parameters as params
from llmlab.notebooks.execution import execute
from llmlab.notebooks.results import NotebookRun, Runs

OUT = "out/notebooks"


def run_notebooks(
    *notebooks: str | os.PathLike[str],
    parameters: Mapping[str, Any] | None = None,
    out: str | os.PathLike[str] = OUT,
    suffix: str = "",
    junit: str | os.PathLike[str] | None = None,
    timeout: float | None = None,
    kernel: str | None = None,
    exit_first: bool = False,
    record: str | os.PathLike[str] | None = None,
    replay: str | os.PathLike[str] | None = None,
    progress: bool | None = None,
    done: Callable[[NotebookRun], None] | None = None,
) -> Runs:
    """Execute notebooks headless: `llmlab.run_notebooks("notebooks/", parameters={"ENGINE": "vllm"})`.

    Each runs in a fresh kernel, in its own folder. When it ends, no process that it started is left running; one that
    has to be killed makes the notebook fail. They run one after the other, so that measurements aren't disturbed.

    Args:
        *notebooks: files, folders (all notebooks directly in them) or patterns (`notebooks/0*.ipynb`).
        parameters: values for the names set in each notebook's cell tagged `parameters`.
        out: the folder for the executed copies; engine logs go to its `logs/NAME/`.
        suffix: appended to the copies' names, to keep runs with different parameters apart ("-vllm").
        junit: also write JUnit XML to this file.
        timeout: maximum seconds per cell.
        kernel: the kernel to use; None for the notebook's own.
        exit_first: stop after the first failure.
        record: record the models' answers to this file (`llmlab.record_answers`).
        replay: answer from this file, without weights or a GPU.
        progress: show a bar on stderr; None shows it on a terminal.
        done: called with each notebook's result when it ends.

    Returns:
        The results: a sequence, displayed as tables; `.ok`: whether all passed.

    Raises:
        UnknownNameError: a parameter that a notebook doesn't have, or a kernel that isn't installed.
        BadInputError: nothing to run, or two notebooks of one name. All of this before anything runs.
        KeyboardInterrupt: Ctrl-C, when all that was started has ended; JUnit is written first.

    Example:
        >>> import nbformat
        >>> cell = nbformat.v4.new_code_cell("import llmlab; llmlab.record('answer', 42)")
        >>> nbformat.write(nbformat.v4.new_notebook(cells=[cell]), "answer.ipynb")
        >>> done = llmlab.run_notebooks("answer.ipynb", out="executed", progress=False)
        >>> done.ok, done[0].records[0].value
        (True, 42)
    """
    given = dict(parameters or {})
    paths = collect(notebooks)
    contents = {path: _read(path) for path in paths}
    params.check(given, contents)
    targets = _targets(paths, Path(out), suffix)
    kernels = {path: _kernel(path, contents[path], kernel) for path in paths}
    if timeout is not None and timeout <= 0:
        raise BadInputError(f"timeout must be more than 0 s, got {timeout:g}.")
    if record is not None and replay is not None:
        raise BadInputError("Got both record and replay.", "Record first, then replay the file.")
    if replay is not None:
        Cassette.read(Path(replay))  # raises if it is none
    tapes = {name: str(Path(path).resolve()) for name, path in ((RECORD, record), (REPLAY, replay)) if path is not None}
    show = sys.stderr.isatty() if progress is None else progress
    runs = [NotebookRun(targets[path].stem, path) for path in paths]
    try:
        for index, path in enumerate(paths):
            code = [c for c in contents[path]["cells"] if c["cell_type"] == "code" and "".join(c["source"]).strip()]
            try:
                runs[index] = execute(
                    path,
                    targets[path],
                    given,
                    kernel=kernels[path],
                    timeout=timeout,
                    progress=show,
                    cells=len(code),
                    environment=tapes,
                )
            except KeyboardInterrupt as error:
                runs[index] = getattr(error, "run", runs[index])
                raise
            finally:
                if done is not None and runs[index].status != "not run":
                    done(runs[index])
            if exit_first and runs[index].failure is not None:
                break
    finally:
        if junit is not None:
            Runs(runs).junit(junit)
    return Runs(runs)


def collect(notebooks: Sequence[str | os.PathLike[str]]) -> list[Path]:
    """The notebooks matched by files, folders and patterns, without duplicates, in the given order.

    Raises:
        BadInputError: one of them matches nothing.
    """
    found: dict[Path, None] = {}
    for given in notebooks:
        path = Path(given)
        if path.is_dir():
            matches = sorted(path.glob("*.ipynb"))
        elif path.exists():
            matches = [path]
        else:
            matches = sorted(Path(m) for m in glob.glob(str(given), recursive=True) if m.endswith(".ipynb"))  # noqa: PTH207 - pathlib has none for absolute patterns
        if not matches:
            raise _nothing(path)
        found.update(dict.fromkeys(match.resolve() for match in matches))
    if not found:
        raise BadInputError("No notebooks were given.", "Pass files, folders or patterns: llmlab run notebooks/")
    return list(found)


def _nothing(path: Path) -> LlmLabError:
    if path.is_dir():
        return BadInputError(f"There are no notebooks (.ipynb files) in {path}.")
    beside = sorted(other.name for other in path.parent.glob("*.ipynb"))
    return unknown("notebook", path.name, beside, f"In {path.parent.resolve()}.")


def _read(path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInputError(f"{path} is not a notebook: {error}.") from error
    if not isinstance(content, dict) or not isinstance(content.get("cells"), list):
        raise BadInputError(f"{path} is not a notebook: it has no cells.", "nbformat 4 or newer is needed.")
    return content


def _targets(paths: list[Path], out: Path, suffix: str) -> dict[Path, Path]:
    """The path of each executed copy."""
    targets: dict[Path, Path] = {}
    for path in paths:
        target = out.resolve() / f"{path.stem}{suffix}.ipynb"
        if target == path:
            raise BadInputError(f"The executed copy of {path} would overwrite it.", "Use another folder: --out DIR")
        other = next((p for p, t in targets.items() if t == target), None)
        if other is not None:
            raise BadInputError(
                f"{other} and {path} have the same name, and so would their executed copies.",
                "Run them separately, with different --out folders.",
            )
        targets[path] = target
    return targets


def _kernel(path: Path, content: Mapping[str, Any], given: str | None) -> str:
    """The name of an installed kernel for the notebook."""
    try:
        import papermill  # noqa: F401 - checked here, before anything runs
        from jupyter_client.kernelspec import KernelSpecManager
    except ImportError as error:
        raise BadInputError("Notebooks need Jupyter and papermill.", "pip install 'llmlab[notebooks]'") from error
    name = given or content.get("metadata", {}).get("kernelspec", {}).get("name") or "python3"
    installed = KernelSpecManager().find_kernel_specs()
    if name not in installed:
        whose = "" if given else f" (from {path.name})"
        raise unknown(f"kernel{whose}", name, sorted(installed), "Choose one with --kernel.")
    return str(name)
