"""`%load_ext llmlab` beside another extension that has `%llm`."""

import warnings

import pytest
from IPython.core.magic import Magics, cell_magic, line_magic, magics_class

from llmlab.magics import register, unregister
from llmlab.magics.command import Context
from llmlab.magics.completion import complete
from llmlab.session import Lab


@magics_class
class Other(Magics):
    @line_magic
    def llm(self, line):
        return "the other one"

    @cell_magic("llm")
    def cell(self, line, body):
        return "the other one's cell"


@pytest.fixture
def shell(ipython):
    yield ipython
    unregister(ipython)
    for kind in ("line", "cell"):
        ipython.magics_manager.magics[kind].pop("llm", None)


def test_the_others_magic_stays_and_llmlabs_has_another_name(shell):
    shell.register_magics(Other)
    lab = Lab()
    with pytest.warns(
        UserWarning, match=r"%llm belongs to tests\.magics\.test_registration.* %llmlab and %%llmlab here"
    ):
        register(shell, lab)
    assert shell.run_cell("%llm ls").result == "the other one"
    assert "no model is loaded" in shell.run_cell("%llmlab ls").result.text().lower()
    assert not shell.run_cell("%%llmlab\nhello").success  # it is llmlab's: there is no model
    assert complete("%llmlab lo", 0, 10, Context(shell, lambda: lab, None))[1][0] == ("load", "command")
    # Unloading takes llmlab's away, and leaves the other's.
    unregister(shell)
    assert shell.find_line_magic("llmlab") is None
    assert shell.run_cell("%llm ls").result == "the other one"


def test_without_another_owner_nothing_is_said(shell):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        register(shell, Lab())
        register(shell, Lab())  # as %reload_ext does
    assert shell.find_line_magic("llm") is not None
    assert shell.find_line_magic("llmlab") is None


def test_an_owner_that_came_later_keeps_its_magic(shell):
    register(shell, Lab())
    shell.register_magics(Other)
    unregister(shell)
    assert shell.run_cell("%llm ls").result == "the other one"
