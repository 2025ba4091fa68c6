"""papermill's execution, with a separate environment, folder and output for the kernel.

papermill itself would change the environment and the folder of this process. This module imports papermill: import it
only where notebooks are run.
"""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from jupyter_client.manager import AsyncKernelManager
from jupyter_client.provisioning.local_provisioner import LocalProvisioner
from papermill import execute_notebook
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import Engine, papermill_engines

from llmlab.machine import guardian

ENGINE = "llmlab"  # its name among papermill's engines

# Errors that nbclient logs are also raised.
_logger = logging.getLogger(__name__)
_logger.addHandler(logging.NullHandler())


class Watch:
    """Tracks which code cell is running, and how the kernel ended."""

    def __init__(self) -> None:
        self.injected: int | None = None  # the cell that papermill inserts, with the given parameters
        self.index: int | None = None
        self.source = ""
        self.begun = 0
        self.status: int | None = None  # the exit status of a kernel that ended by itself

    def begin(self, cell: Any, cell_index: int) -> None:
        """Called when a code cell starts."""
        self.index, self.source = cell_index, str(cell.source)
        self.begun += cell_index != self.injected

    def number(self, index: int | None) -> int | None:
        """The number of a cell in the notebook, from 1; None for the inserted cell."""
        if index is None or index == self.injected:
            return None
        return index + 1 - (self.injected is not None and index > self.injected)

    @property
    def death(self) -> str:
        """How the kernel died, in words."""
        if self.status is None or self.status >= 0:
            return "the kernel died" + (f" with exit status {self.status}" if self.status else "")
        name = signal.Signals(-self.status).name
        return f"the kernel died with {name}" + (" (out of memory?)" if name == "SIGKILL" else "")


class _KernelManager(AsyncKernelManager):
    """Starts a kernel under a guardian, which ends it when this process has ended.

    ipykernel looks for its parent on a thread of its own, which C code that keeps the GIL stops.
    """

    def format_kernel_cmd(self, extra_arguments: list[str] | None = None) -> list[str]:
        command: list[str] = super().format_kernel_cmd(extra_arguments)
        # Another provisioner may start it on another machine; on Windows, a process keeps its parent's id.
        if sys.platform == "win32" or not isinstance(self.provisioner, LocalProvisioner):
            return command
        return guardian.command(command)


class _Client(PapermillNotebookClient):  # type: ignore[misc]
    def papermill_execute_cells(self) -> None:
        try:
            super().papermill_execute_cells()
        except BaseException:
            # A busy or dead kernel doesn't answer a shutdown request.
            self.shutdown_kernel = "immediate"
            self.nb_man.watch.status = self.km.provisioner.process.poll()
            raise


class _Engine(Engine):  # type: ignore[misc]
    @classmethod
    def execute_managed_notebook(
        cls,
        nb_man: Any,
        kernel_name: str,
        *,
        watch: Watch,
        launch: dict[str, Any],
        cell_timeout: int | None,
        start_timeout: int,
        **_: Any,
    ) -> None:
        nb_man.watch = watch
        tags = [cell.metadata.get("tags", ()) for cell in nb_man.nb.cells]
        watch.injected = next((i for i, t in enumerate(tags) if "injected-parameters" in t), None)
        client = _Client(
            nb_man,
            kernel_name=kernel_name,
            kernel_manager_class=_KernelManager,
            timeout=cell_timeout,
            startup_timeout=start_timeout,
            on_cell_execute=watch.begin,
            iopub_timeout=60,  # the default of 4 s is too short on a busy machine
            log=_logger,
        )
        client.execute(**launch)


papermill_engines.register(ENGINE, _Engine)


def launch(
    path: Path,
    target: Path,
    parameters: Mapping[str, Any],
    *,
    watch: Watch,
    kernel: str,
    environment: dict[str, str],
    output: IO[bytes],
    timeout: float | None,
    progress: bool,
) -> None:
    """Execute a notebook in its own folder.

    Args:
        path: the notebook.
        target: path of the executed copy, written cell by cell.
        parameters: values for its parameters.
        watch: receives the events.
        kernel: the kernel's name.
        environment: the kernel's environment.
        output: receives stdout and stderr of the kernel's process.
        timeout: maximum seconds per cell.
        progress: show a bar on stderr.
    """
    execute_notebook(
        _verbatim(path),
        _verbatim(target),
        dict(parameters),
        engine_name=ENGINE,
        kernel_name=kernel,
        progress_bar={"desc": target.stem, "leave": False} if progress else False,
        watch=watch,
        launch={"env": environment, "cwd": str(path.parent), "stdout": output, "stderr": output},
        cell_timeout=None if timeout is None else max(1, round(timeout)),
    )


def _verbatim(path: Path) -> str:
    """A path for papermill, which interprets braces in it as parameter names."""
    return str(path).replace("{", "{{").replace("}", "}}")
