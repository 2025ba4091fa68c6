"""`%llm` line commands in a real shell."""

from __future__ import annotations

import importlib
import pkgutil

import pytest

import llmlab.magics.commands
from llmlab.display import DoctorView, HistoryView, ModelList
from llmlab.magics import helptext, table
from llmlab.magics.command import Command
from llmlab.magics.helptext import HelpView


def test_the_table_has_not_drifted():
    found = {}
    for info in pkgutil.iter_modules(llmlab.magics.commands.__path__):
        module = importlib.import_module(f"llmlab.magics.commands.{info.name}")
        for name, value in vars(module).items():
            if isinstance(value, type) and issubclass(value, Command) and value.__module__ == module.__name__:
                found[value.name] = f"{module.__name__}:{name}"
    assert found.pop("cell") == table.CELL
    assert found == table.COMMANDS


BAD_LINES = [
    ("%llm laod nano", "Unknown command 'laod'", "Did you mean 'load'?"),
    ("%llm brew nano", "Unknown command 'brew'", "See %llm help."),
    ("%llm load", "MODEL is missing", "Usage: %llm load MODEL"),
    ("%llm load nano --enigne vllm", "Unknown option '--enigne'", "Did you mean '--engine'?"),
    ("%llm load nano --engine ollama", "'ollama'", "auto, llamacpp, vllm"),
    ("%llm load nano --ctx many", "--ctx must be an integer, got 'many'", "--ctx N: context length"),
    ("%llm load nano --ctx", "--ctx takes one argument, got none", "--ctx N"),
    ("%llm load nano extra words", "unexpected 'extra' 'words'", "Usage:"),
    ("%llm load nano -x n_threads", "-x takes KEY=VALUE", "-x n_threads=2"),
    ("%llm load 'nano", "quote isn't closed", "double quotes"),
    ("%llm use", "NAME is missing", "Usage: %llm use NAME"),
    ("%llm use other", "Unknown loaded model 'other'", "nano"),
    ("%llm unload other", "Unknown loaded model 'other'", "nano"),
    ("%llm unload nano --all", "Got both", "--all"),
    ("%llm logs --lines 0", "--lines must be 1 or more", "0"),
    ("%llm logs other", "Unknown loaded model 'other'", "nano"),
    ("%llm help laod", "Unknown command 'laod'", "'load'"),
    ("%llm history --nwe", "Unknown option '--nwe'", "'--new'"),
    ("%llm ls extra", "unexpected 'extra'", "Usage: %llm ls"),
    ("%llm show no-such-model-anywhere", "no-such-model-anywhere", "nano"),
]


@pytest.mark.parametrize(("line", "says", "way_out"), BAD_LINES, ids=[line for line, _, _ in BAD_LINES])
def test_bad_lines_fail_with_one_clean_line(bench, line, says, way_out):
    bench.add("nano")
    before = bench.lab.models
    message = bench.fails(line)
    assert says in message
    assert way_out in message
    assert bench.lab.models == before


def test_a_failing_line_leaves_nothing_on_display(bench):
    ran = bench.run("%llm load no-such-model")
    assert not ran.success
    assert ran.displays == []


def test_ls_lists_marks_and_measures(bench):
    bench.add("first")
    bench.add("second")
    ran = bench.run("%llm ls")
    assert isinstance(ran.result, ModelList)
    assert [model.name for model in ran.result] == ["first", "second"]
    lines = ran.out.split("\n")
    marked = next(line for line in lines if "second" in line)
    assert marked.split()[:4] == ["*", "second", "llamacpp", "F16"]
    assert "21.0 MB" in marked
    assert "20.0 MB" in marked
    assert "1,000,000 bytes" in ran.out
    assert "threads" not in ran.out
    assert "scripted <b>1</b>" in bench.run("%llm ls -v").out


def test_ls_of_nothing_says_how_to_load(bench):
    assert "%llm load nano" in bench.run("%llm ls").out


def test_use_switches_and_returns_the_model(bench):
    bench.add("first")
    bench.add("second")
    ran = bench.run("%llm use first")
    assert ran.success
    assert bench.lab.current.name == "first"
    assert ran.result.value is bench.lab.models["first"]
    assert "first (llamacpp, F16) is the current model." in ran.out


def test_unload_one_and_all(bench):
    for name in ("a", "b", "c"):
        bench.add(name)
    assert "Unloaded b. c is the current model." in bench.run("%llm unload b").out
    assert bench.run("%llm unload").result.value == ["c"]
    assert bench.run("%llm unload --all").result.value == ["a"]
    assert "No model was loaded." in bench.run("%llm unload --all").out
    assert not bench.lab.models


def test_names_on_the_line_come_from_variables(bench):
    bench.add("first")
    bench.add("second")
    bench.run("which, names = 'first', ['first', 'second']")
    assert bench.run("%llm use $which").success
    assert bench.lab.current.name == "first"
    assert bench.run("%llm use {{names[1]}}").success
    assert bench.lab.current.name == "second"


def test_logs(bench):
    bench.add("nano")
    bench.lab.models["nano"].log.write("one\ntwo\x1b[31m <script>\n")
    ran = bench.run("%llm logs nano")
    assert ran.result.text() == "one\ntwo[31m <script>"
    assert "<script>" not in ran.result._repr_html_()
    assert bench.run("%llm logs nano --lines 1").result.text() == "two[31m <script>"


def test_doctor_reports(bench):
    ran = bench.run("%llm doctor")
    assert ran.success
    assert isinstance(ran.result, DoctorView)
    assert len(ran.result.report.checks) > 3
    assert "Python" in ran.out


def test_history_starts_empty_and_new_makes_one(bench):
    ran = bench.run("%llm history")
    assert isinstance(ran.result, HistoryView)
    assert "No conversation yet" in ran.out
    assert bench.run("%llm history --new").success
    assert bench.lab.history.current is not None


def test_models_lists_the_catalogue(bench):
    ran = bench.run("%llm models")
    assert "nano" in ran.out
    assert "nano" in [entry.name for entry in ran.result]


def test_show_reads_headers_without_a_load(bench):
    ran = bench.run("%llm show nano")
    assert ran.success, ran.out
    assert ran.result.header.architecture == "LlamaForCausalLM"
    for word in ("parameters", "context", "chat template", "vocabulary", "BF16"):
        assert word in ran.out
    assert not bench.lab.models


# -- help ----------------------------------------------------------------------------------------


def test_llm_alone_is_the_short_list(bench):
    ran = bench.run("%llm")
    assert isinstance(ran.result, HelpView)
    for name in table.COMMANDS:
        assert f"%llm {name}" in ran.out


@pytest.mark.parametrize("line", ["%llm", "%llm help", "%llm --help", "%llm -h"])
def test_help_names_every_command_on_one_screen(bench, line):
    page = bench.run(line).result.text()
    for command in table.everything():
        assert command.summary in page
    lines = page.split("\n")
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 110
    assert [one.split()[0] for one in lines if one[:1] not in (" ", "")][:-1] == list(table.GROUPS)


def test_each_command_is_in_one_group_of_the_help():
    grouped = [name for group in table.GROUPS.values() for name in group]
    for name in ("%%llm", *table.COMMANDS):
        assert grouped.count(name) == 1, f"add {name!r} to one group of llmlab.magics.table.GROUPS"


def test_the_help_of_the_cell_has_every_option(bench):
    page = bench.run("%llm help cell").result.text()
    for option in table.cell().doc().options:
        for name in option.names:
            assert name in page


@pytest.mark.parametrize("name", list(table.COMMANDS))
def test_each_command_has_a_page_with_all_its_options_and_examples(bench, name):
    page = bench.run(f"%llm help {name}").result.text()
    assert bench.run(f"%llm {name} --help").result.text() == page
    doc = table.find(name).doc()
    assert doc.summary in page
    assert doc.examples
    for option in doc.options:
        assert option.help
        for written in option.names:
            assert written in page
    for typed, _ in doc.examples:
        assert typed.startswith("%llm")
        assert typed in page
    assert max(len(line) for line in page.split("\n")) <= 110


def test_every_example_parses():
    for command in table.everything():
        for typed, _ in command.examples:
            line = typed.split("\n")[0].removeprefix(command.typed())
            command.parser().parse_line(line)


@pytest.mark.parametrize(("typed", "holds"), [("%llm?", "%llm load"), ("%%llm?", "--max-tokens")])
def test_question_mark_shows_the_help(bench, monkeypatch, typed, holds):
    shown = []
    monkeypatch.setitem(bench.shell.hooks, "show_in_pager", lambda text, **_: shown.append(text))
    assert bench.run(typed).success
    assert holds in (shown[0]["text/plain"] if isinstance(shown[0], dict) else shown[0])


def test_the_reference_has_every_command():
    assert [doc.name for doc in helptext.reference()] == [*(f"%llm {name}" for name in table.COMMANDS), "%%llm"]


# -- the extension -------------------------------------------------------------------------------


def test_unregister_takes_everything_out(bench):
    from llmlab.magics import register, unregister

    matchers = len(bench.shell.Completer.custom_matchers)
    unregister(bench.shell)
    assert not bench.run("%llm ls").success
    assert len(bench.shell.Completer.custom_matchers) == matchers - 1
    unregister(bench.shell)
    register(bench.shell, bench.lab)
    register(bench.shell, bench.lab)
    assert len(bench.shell.Completer.custom_matchers) == matchers
    assert bench.run("%llm ls").success
