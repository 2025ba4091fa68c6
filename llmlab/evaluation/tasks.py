"""lm-eval's tasks: those that come with llmlab, local folders of YAML and JSON Lines, and lm-eval's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmlab import _imports, config
from llmlab.errors import BadInputError, LlmLabError, LoadError, unknown

INCLUDED = Path(__file__).parent / "included"
# Builders of `datasets` that read local files.
_FILES = ("json", "csv", "parquet", "text", "arrow")


@dataclass(frozen=True, slots=True)
class Found:
    """lm-eval's tasks by name, and its groups."""

    tasks: Mapping[str, Any]
    groups: Mapping[str, Any]


def included() -> dict[str, Path]:
    """The tasks that come with llmlab, by name."""
    return {path.stem: path for path in sorted(INCLUDED.glob("*.yaml"))}


def find(names: Sequence[str | Path], include: Sequence[str | Path]) -> Found:
    """Load tasks with their data.

    Args:
        names: names of tasks, groups or tags; folders of tasks; YAML files.
        include: folders in which names are looked up, before lm-eval's own tasks.

    Raises:
        UnknownNameError: there is no such task.
        BadInputError: a folder has no tasks.
        LoadError: a task's data or code can't be loaded.
    """
    _imports.load("lm_eval.tasks", "datasets")
    from lm_eval.tasks import TaskManager

    if not names:
        raise BadInputError("There is no task to evaluate.", f"For example {next(iter(included()))!r}.")
    paths = [path for name in names if (path := _path(name)) is not None]
    folders = [INCLUDED, *map(_folder, [*include, *(path.parent if path.is_file() else path for path in paths)])]
    # lm-eval's index of its own 15,000 files takes seconds, so it is read only for a name that isn't local.
    manager = TaskManager(include_path=folders, include_defaults=False)
    asked = [one for name in names for one in _named(name, manager.task_index)]
    if any(name not in manager.task_index for name in asked):
        manager = TaskManager(include_path=folders)
    for name in asked:
        if name not in manager.task_index:
            raise unknown(
                "task",
                name,
                list(manager.task_index),
                f"{', '.join(included())} come with llmlab; lm-eval's own: lm-eval ls tasks.",
            )
    _make_absolute(manager.task_index, folders)
    return _load(manager, asked)


def _path(name: str | Path) -> Path | None:
    """The folder or file that a name means, or None."""
    written = isinstance(name, Path) or any(c in name for c in "/\\") or name.endswith((".yaml", ".yml"))
    path = Path(name).expanduser()
    if not written and not path.is_dir():
        return None
    if not path.exists():
        raise BadInputError(f"There is no task at {path}.", "Name a folder of YAML files, or one of them.")
    return path.resolve()


def _folder(path: str | Path) -> Path:
    found = Path(path).expanduser().resolve()
    if not found.is_dir():
        raise BadInputError(f"{found} is no folder of tasks.", "A folder has YAML files, and their data.")
    return found


def _named(name: str | Path, index: Mapping[str, Any]) -> list[str]:
    """The tasks that a name or a path means."""
    path = _path(name)
    if path is None:
        return [str(name)]
    own = [
        one
        for one, entry in index.items()
        if entry.yaml_path is not None and (entry.yaml_path == path or path in entry.yaml_path.parents)
    ]
    # A folder's groups have its tasks again.
    tasks = [one for one in own if index[one].kind.name in ("TASK", "PY_TASK")] or own
    if not tasks:
        raise BadInputError(f"{path} has no tasks.", "A task is a YAML file with the key `task`.")
    return tasks


def _make_absolute(index: Mapping[str, Any], folders: Sequence[Path]) -> None:
    """Let the data files of local tasks be relative to their YAML file, not to the working folder."""
    from lm_eval.tasks._yaml_loader import load_yaml

    for entry in index.values():
        place = entry.yaml_path
        if place is None or entry.kind.name != "TASK" or not any(folder in place.parents for folder in folders):
            continue
        settings = (entry.cfg or {}).get("dataset_kwargs") or {}
        if "data_files" not in settings:
            continue
        full = load_yaml(place, resolve_func=True)
        own = dict(full["dataset_kwargs"])
        own["data_files"] = _absolute(own["data_files"], place.parent)
        if full.get("dataset_path") in _FILES:
            own.setdefault("cache_dir", str(config.cache_dir() / "datasets"))
        entry.cfg = {**full, "dataset_kwargs": own}
        entry.yaml_path = None


def _absolute(files: Any, folder: Path) -> Any:
    if isinstance(files, Mapping):
        return {split: _absolute(one, folder) for split, one in files.items()}
    if isinstance(files, str):
        return files if "://" in files else str(folder / Path(files).expanduser())
    return [_absolute(one, folder) for one in files]


def _load(manager: Any, names: Sequence[str]) -> Found:
    _imports.load("datasets")
    import datasets

    shown = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        found = manager.load(list(dict.fromkeys(names)))
    except LlmLabError:
        raise
    except Exception as error:
        why = str(error).strip().split("\n")[0] or type(error).__name__
        raise LoadError(
            f"lm-eval can't load {', '.join(names)}: {why}",
            "A folder with a YAML file and JSON Lines needs no hub: docs/evaluation.md.",
        ) from error
    finally:
        if not shown:
            datasets.enable_progress_bars()
    return Found(found["tasks"], found.get("groups", {}))
