"""Tab, through both of IPython's interfaces: `ip.complete` (terminals) and `Completer.completions` (JupyterLab)."""

from __future__ import annotations

import pytest
from IPython.core.completer import provisionalcompleter


def offers(shell, text):
    """What both interfaces offer at the end of a text; they must agree."""
    with provisionalcompleter():
        new = list(shell.Completer.completions(text, len(text)))
    last = text.split("\n")[-1]
    if "\n" not in text:
        _, old = shell.complete(None, last, len(last))
        assert set(old) == {c.text for c in new}
    return [text[: c.start] + c.text for c in new], [c.text for c in new]


CASES = [
    ("%llm ", {"load", "ls", "use", "unload", "show", "models", "logs", "doctor", "help", "history"}, set()),
    ("%llm l", {"load", "ls", "logs"}, {"use"}),
    ("%llm load na", {"nano"}, {"first"}),
    ("m = %llm load na", {"nano"}, set()),
    ("%llm load nano --e", {"--engine"}, {"--quant", "nano"}),
    ("%llm load nano --engine ", {"auto", "vllm", "llamacpp"}, {"nano"}),
    ("%llm load nano --engine=v", {"--engine=vllm"}, {"--engine=auto"}),
    ("%llm load nano --quant Q4", {"Q4_K_M"}, {"Q8_0", "awq"}),
    ("%llm load nano --quant q4_k", {"Q4_K_M"}, set()),
    ("%llm load nano --engine vllm --quant ", {"awq", "bf16"}, {"Q4_K_M"}),
    ("%llm load nano ", {"--engine", "--as"}, {"nano"}),
    ("%llm load nano --engine auto --", {"--quant"}, {"--engine"}),
    ("%llm show na", {"nano"}, set()),
    ("%llm use ", {"first", "second"}, {"nano"}),
    ("%llm unload f", {"first"}, {"second"}),
    ("%llm grid answ", {"answer_so_far"}, set()),
    ("%llm grid x --quants Q4_K", {"Q4_K_M"}, set()),
    ("%llm grid x --scorers e", {"exact", "edit_distance"}, {"contains"}),
    ("%llm grid x --ad", {"--adapters"}, {"--data"}),
    ("%llm logs ", {"first", "second"}, set()),
    ("%llm help l", {"load", "ls", "logs"}, {"use"}),
    ("%llm ls -", {"-v", "--verbose"}, set()),
    ("%%llm -m ", {"first", "second"}, {"nano"}),
    ("%%llm --m", {"--model", "--max-tokens", "--min-p"}, {"--seed"}),
    ("%%llm -f ", {"md", "text", "json", "code"}, set()),
    ("%%llm -o answ", {"answer_so_far"}, set()),
    ("%%llm\nTell me of {{answ", {"answer_so_far"}, set()),
    ("%%llm\nTell me of {{ answ", {"answer_so_far"}, set()),
    ("\n%%llm --top", {"--top-p", "--top-k"}, set()),
    ("x = 1\n%llm use ", {"first", "second"}, set()),
]


@pytest.mark.parametrize(("text", "has", "lacks"), CASES, ids=[text for text, _, _ in CASES])
@pytest.mark.parametrize("jedi", [False, True])
def test_offers(bench, text, has, lacks, jedi):
    bench.add("first")
    bench.add("second")
    bench.run("answer_so_far = 1")
    bench.shell.Completer.use_jedi = jedi
    try:
        _, found = offers(bench.shell, text)
    finally:
        bench.shell.Completer.use_jedi = False
    assert has <= set(found)
    assert not lacks & set(found)


def test_a_completion_replaces_the_word_it_completes(bench):
    bench.add("hf:org")
    whole, _ = offers(bench.shell, "%llm use hf:o")
    assert whole == ["%llm use hf:org"]
    whole, _ = offers(bench.shell, "%llm load nano --quant q4_k_m")
    assert whole == ["%llm load nano --quant Q4_K_M"]


@pytest.mark.parametrize("text", ["%llm no-such ", "%%llm\nplain words he", "llm = 1; ll", "%timeit pri", "%llmx "])
def test_no_offers_elsewhere(bench, text):
    bench.add("hello")
    _, found = offers(bench.shell, text)
    assert "hello" not in found
    assert "load" not in found


def test_tab_on_a_broken_line_is_silent(bench, capsys):
    offers(bench.shell, '%llm load "unclosed --engine ')
    offers(bench.shell, "%llm load --engine --quant --x ")
    assert "Traceback" not in capsys.readouterr().err
