"""Progress that is shown while something long runs, and what it leaves behind."""

import time

import pytest

from llmlab._hooks import hooks, one_display
from llmlab.display.live import counted, progress_bar


@pytest.fixture
def displays(ipython, monkeypatch):
    """What is displayed in a shell that has a front end."""
    from IPython.core.displaypub import CapturingDisplayPublisher

    publisher = CapturingDisplayPublisher()
    monkeypatch.setattr(ipython, "display_pub", publisher)
    return publisher.outputs


def slowly(count):
    for number in range(count):
        time.sleep(0.12)
        yield number


class Slow(list):
    def __iter__(self):
        return slowly(len(self))


def test_a_batch_that_takes_long_is_one_display_that_ends_as_a_line(displays):
    assert list(counted(Slow(range(4)), "generating", "prompt", after_s=0.1)) == [0, 1, 2, 3]
    texts = [one["data"]["text/plain"] for one in displays]
    assert texts[-1].startswith("generating: 4 prompts in ")
    assert any("%" in text for text in texts[:-1])
    # All of it is one display: the first call made it, the others update it.
    assert [one.get("update", False) for one in displays] == [False] + [True] * (len(displays) - 1)


def test_a_quick_batch_shows_nothing(displays):
    assert list(counted(range(4), "generating", "prompt", after_s=5)) == [0, 1, 2, 3]
    assert displays == []


def test_a_failure_ends_the_bar(displays):
    def fails():
        for number in counted(Slow(range(4)), "generating", "prompt", after_s=0.1):
            1 / (2 - number)

    with pytest.raises(ZeroDivisionError):
        fails()
    assert displays[-1]["data"]["text/plain"].startswith("generating: 2 prompts in ")


def test_under_another_display_requests_show_no_bar_of_their_own(displays):
    with one_display():
        assert list(hooks.counted(Slow(range(3)), "generating", "prompt", after_s=0.1)) == [0, 1, 2]
    assert displays == []
    assert list(hooks.counted(Slow(range(3)), "generating", "prompt", after_s=0.1)) == [0, 1, 2]
    assert displays


@pytest.mark.parametrize("given", [None, lambda _phase, _fraction: None])
def test_long_work_has_one_bar_and_none_for_its_requests(displays, given):
    with progress_bar("experiment", given) as report:
        time.sleep(0.25)
        report("asking", 0.5)
        assert list(hooks.counted(Slow(range(3)), "generating", "prompt", after_s=0.1)) == [0, 1, 2]
    shown = {one["data"]["text/plain"].partition(":")[0] for one in displays}
    assert shown == ({"experiment"} if given is None else set())
