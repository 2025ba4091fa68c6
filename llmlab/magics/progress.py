"""A command's progress display, which ends with the reason when the command fails."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar

from llmlab._hooks import one_display
from llmlab.errors import ChoiceError, PullInterrupted
from llmlab.magics.offers import show_offers
from llmlab.render import units


class _Stoppable(Protocol):
    def stop(self, line: str) -> None: ...


Display = TypeVar("Display", bound=_Stoppable)


@contextmanager
def reporting(
    display: Display, title: str, *, interrupted: str = "interrupted, nothing was kept", failed: str = "failed"
) -> Iterator[Display]:
    """Run a command under a progress display; an exception replaces the display with one line, and is raised.

    Args:
        display: a `ProgressBar` or a `TuneDisplay`; the caller finishes it with the result.
        title: what is running.
        interrupted: the words for Ctrl-C.
        failed: the words for any other exception.
    """
    try:
        with one_display():
            yield display
    except PullInterrupted as stopped:
        display.stop(f"{title}: interrupted; {units.size(stopped.received)} are kept to go on with")
        raise
    except KeyboardInterrupt:
        display.stop(f"{title}: {interrupted}")
        raise
    except ChoiceError as error:
        display.stop(f"{title}: choose an author with --from")
        show_offers(error)
        raise
    except BaseException:
        display.stop(f"{title}: {failed}")
        raise
