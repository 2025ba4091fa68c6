"""Executes one notebook in its own kernel, and ends all processes that it started."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmlab import config
from llmlab.notebooks.failure import Failure, log_tail, traceback_text
from llmlab.notebooks.figures import RecordList, records
from llmlab.notebooks.processes import Marked, unhurried
from llmlab.notebooks.results import NotebookRun

if TYPE_CHECKING:
    from llmlab.notebooks.kernel import Watch

KERNEL_OUTPUT = "kernel.txt"  # stdout and stderr of the kernel's process, where crashes of native code are reported


def execute(
    path: Path,
    target: Path,
    parameters: Mapping[str, Any],
    *,
    kernel: str,
    timeout: float | None,
    progress: bool,
    cells: int,
    environment: Mapping[str, str] | None = None,
) -> NotebookRun:
    """Execute one notebook, and make sure that every process it started has ended.

    Args:
        path: the notebook.
        target: path of the executed copy; engine logs go to `logs/NAME/` beside it.
        parameters: values for its parameters.
        kernel: the kernel's name.
        timeout: maximum seconds per cell; None for no limit.
        progress: show a bar on stderr.
        cells: its number of code cells.
        environment: further variables of the kernel's environment.

    Raises:
        KeyboardInterrupt: Ctrl-C; all its processes have ended, and the exception's `run` has the partial result.
    """
    from llmlab.notebooks.kernel import Watch, launch

    logs = target.parent / "logs" / target.stem
    shutil.rmtree(logs, ignore_errors=True)
    with config.writing(logs):
        logs.mkdir(parents=True)
        target.unlink(missing_ok=True)
    marked, watch = Marked(), Watch()
    own = {"LLMLAB_LOGS": str(logs.resolve()), "PYTHONFAULTHANDLER": "1"}
    variables = {**marked.environment(), **(environment or {}), **own}
    started = time.perf_counter()
    failure: Failure | None = None
    stopped: KeyboardInterrupt | None = None
    left: list[str] = []
    try:
        with (logs / KERNEL_OUTPUT).open("wb") as output:
            launch(
                path,
                target,
                parameters,
                watch=watch,
                kernel=kernel,
                environment=variables,
                output=output,
                timeout=timeout,
                progress=progress,
            )
        left = marked.end()
    except KeyboardInterrupt as error:
        stopped, failure = error, _stopped(watch, "interrupted")
    except Exception as error:  # noqa: BLE001 - a failing notebook must not stop the others
        failure = _failure(error, watch, timeout)
        left = marked.end()
    finally:
        with unhurried():
            marked.end(grace_s=0)
    if left:
        behind = f"leftover processes were killed: {', '.join(left)}"
        failure = Failure(behind) if failure is None else replace(failure, reason=f"{failure.reason} ({behind})")
    if failure is not None and stopped is None:
        failure = _with_log(failure, logs, kernel_died=watch.status is not None)
    run = NotebookRun(
        name=target.stem,
        path=path,
        executed=target,
        seconds=time.perf_counter() - started,
        ran=watch.begun - (failure is not None and failure.cell is not None),
        cells=cells,
        records=records(target) if target.exists() else RecordList(()),
        failure=failure,
    )
    if stopped is not None:
        stopped.run = run  # type: ignore[attr-defined]
        raise stopped
    return run


def _failure(error: Exception, watch: Watch, timeout: float | None) -> Failure:
    from nbclient.exceptions import CellTimeoutError, DeadKernelError
    from papermill import PapermillExecutionError

    if isinstance(error, PapermillExecutionError):
        return Failure(
            reason=f"{error.ename}: {error.evalue}".removesuffix(": ").splitlines()[0][:300],
            cell=watch.number(error.cell_index),
            prompt=error.exec_count,
            source=str(error.source),
            traceback=traceback_text(error.traceback),
        )
    if isinstance(error, CellTimeoutError):
        return _stopped(watch, f"timed out after {timeout:g} s" if timeout else "its output didn't arrive")
    if isinstance(error, DeadKernelError):
        return _stopped(watch, watch.death)
    return _stopped(watch, f"{type(error).__name__}: {error}")


def _stopped(watch: Watch, reason: str) -> Failure:
    """A failure that the running cell didn't raise: a timeout, a dead kernel, Ctrl-C."""
    return Failure(reason=reason, cell=watch.number(watch.index), source=watch.source)


def _with_log(failure: Failure, logs: Path, *, kernel_died: bool) -> Failure:
    """The failure with the end of the most recent log."""
    path, text = log_tail([*logs.glob("*.log"), *([logs / KERNEL_OUTPUT] if kernel_died else [])])
    return failure if path is None else replace(failure, log=text, log_path=path)
