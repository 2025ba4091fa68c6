"""Reprs: aligned text, escaped HTML, Markdown that can't run anything, numbers with units."""

from __future__ import annotations

import pickle
import re
from html.parser import HTMLParser
from random import Random
from types import SimpleNamespace

import pandas as pd
import pytest

from llmlab import display
from llmlab.display.runs import as_runs
from llmlab.render import safe, units
from llmlab.render.table import Table, pairs_html, pairs_text
from llmlab.types import Choice, Completion, Message, SamplingParams, Timings, TokenLogprob, Usage

XSS = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "</pre></div><script>alert(1)</script>",
    "<svg/onload=alert(1)>",
    "<ScRiPt\n>alert(1)</ScRiPt>",
    "<!--><script>alert(1)</script>-->",
    "<iframe srcdoc='<script>alert(1)</script>'>",
    "<a href='javascript:alert(1)'>x</a>",
    "<math><mtext></form><form><mglyph><style></math><img src onerror=alert(1)>",
    "[x](javascript:alert(1))",
    "[x](JaVaScRiPt:alert(1))",
    "[x](javascript&#58;alert(1))",
    "[x](&#106;avascript:alert(1))",
    "[x](&#x6A&#x61;vascript:alert(1))",
    "[x](javascript\\:alert(1))",
    "[x](java\tscript:alert(1))",
    "[x](\x01javascript:alert(1))",
    "[x](java\x00script:alert(1))",
    "[x](<javascript:alert(1)>)",
    "[x](vbscript:msgbox(1))",
    "[x](data:text/html,<script>alert(1)</script>)",
    "[x][1]\n\n[1]: javascript:alert(1)",
    "![x](https://example.com/track.png)",
    '![x](x"onerror="alert(1))',
    "`` `<script>alert(1)</script>`` `",
    "`<script>alert(1)</script>",
    "``<script>alert(1)</script>`",
    "\\`<script>alert(1)</script>`",
    "`a`<script>alert(1)</script>`b`",
    "```\n<script>alert(1)</script>",
    "```\n```<script>alert(1)</script>",
    "~~~\n```\n~~~\n<script>alert(1)</script>",
    "````\n```\n</code></pre><script>alert(1)</script>\n````\n<script>alert(2)</script>",
    "    ```\n    <script>alert(1)</script>\n",
    "> ```\n<script>alert(1)</script>",
    "- ```\n<script>alert(1)</script>\n- ```",
    '```js" onclick="alert(1)\nx\n```',
    "$$<script>alert(1)</script>$$",
    "<javascript:alert(1)>",
    '<https://example.com/"onclick=alert(1)>',
    "| a |\n|---|\n| <script>alert(1)</script> |",
]
AROUND = (
    "@",
    "Sure:\n\n@\n\nDone.",
    "- item\n  @",
    "**@**",
    "`@",
    "@\n```",
    "1. ```\n@",
    "> @",
    "$$@$$",
    "[@](@)",
    "@@",
)
RUNS = re.compile(r"^\s*(javascript|vbscript|data|file|blob):", re.IGNORECASE)


class Judge(HTMLParser):
    """Reads HTML as a browser does and notes what could run or fetch."""

    allowed = frozenset(
        {
            "a",
            "b",
            "blockquote",
            "br",
            "code",
            "del",
            "details",
            "div",
            "em",
            "h1",
            "h2",
            "h3",
            "hr",
            "li",
            "ol",
            "p",
            "pre",
        }
        | {"progress", "s", "small", "span", "strong", "summary", "table", "tbody", "td", "th", "thead", "tr", "ul"}
        | {"dd", "dl", "dt", "section", "sup"}
    )

    def __init__(self) -> None:
        super().__init__()
        self.bad: list[str] = []

    def handle_starttag(self, tag, attrs):
        if tag not in self.allowed:
            self.bad.append(tag)
        for name, value in attrs:
            stripped = re.sub(r"[\x00-\x20]", "", value or "")
            if name.startswith("on") or (name in ("href", "src") and RUNS.match(stripped)):
                self.bad.append(f"{tag} {name}={value}")


def judged(html: str) -> list[str]:
    judge = Judge()
    judge.feed(html)
    return judge.bad


def renderers():
    """Every Markdown renderer at hand, raw HTML on: the worst case, as JupyterLab treats a trusted notebook."""
    mistune = pytest.importorskip("mistune")
    found = {"mistune": mistune.create_markdown(escape=False, plugins=["table", "strikethrough", "url", "footnotes"])}
    nbconvert = pytest.importorskip("nbconvert.filters.markdown_mistune")
    found["nbconvert"] = nbconvert.markdown2html_mistune
    try:
        from markdown_it import MarkdownIt

        found["markdown-it"] = MarkdownIt("commonmark", {"html": True}).enable("table").render
    except ImportError:
        pass
    return found


@pytest.mark.parametrize("attack", XSS)
def test_markdown_of_model_text_can_not_run_anything(attack):
    for text in (place.replace("@", attack) for place in AROUND):
        completion = made(text)
        for source in (safe.markdown(text), display.completion_markdown(completion)):
            for name, render in renderers().items():
                assert judged(render(source)) == [], f"{name}: {source!r}"


PIECES = [
    *(
        "`",
        "``",
        "```",
        "````",
        "~~~",
        "```js\n",
        "```\n",
        "~~~\n",
        "\n",
        "\n\n",
        "    ",
        "\t",
        "> ",
        "- ",
        "1. ",
        "| ",
        "|---|\n",
    ),
    *(
        "<script>",
        "</script>",
        "<b onclick=x>",
        "<a href=",
        "<",
        ">",
        "<!--",
        "-->",
        "<![CDATA[",
        "<?",
        "<pre>",
        "</code>",
    ),
    *(
        "[x](",
        "![",
        "]",
        "(",
        ")",
        "[1]: ",
        "[x][1]",
        "[^1]: ",
        "javascript:",
        "java",
        "script",
        ":",
        "alert(1)",
        "data:",
    ),
    *(
        "&",
        "#58;",
        "&#58;",
        "&colon;",
        "&Tab;",
        "&NewLine;",
        "\\",
        "$$",
        "$",
        "*",
        "_",
        "\x01",
        "\r",
        "\u2028",
        "'",
        '"',
        "a",
    ),
]


def test_random_mixtures_can_not_run_anything():
    random = Random(0)
    all_renderers = renderers()
    for _ in range(1500):
        text = "".join(random.choices(PIECES, k=random.randint(2, 14)))
        source = safe.markdown(text)
        for name, render in all_renderers.items():
            assert judged(render(source)) == [], f"{name}: {text!r} -> {source!r}"


def test_the_judge_sees_what_an_unescaped_text_would_do():
    render = renderers()["mistune"]
    assert judged(render(XSS[0])) == ["script"]
    assert judged('<a href="java\tscript:alert(1)">') != []


@pytest.mark.parametrize("attack", XSS)
@pytest.mark.parametrize("fmt", display.FORMATS)
def test_no_format_lets_html_through(attack, fmt):
    bundle = display.bundle([attack, attack], fmt=fmt, line=attack)
    for name, render in renderers().items():
        assert judged(render(bundle["text/markdown"])) == [], name
    assert judged(bundle.get("text/html", "")) == []
    assert "\x00" not in bundle["text/plain"]
    assert "\x1b" not in bundle["text/plain"]


MARKDOWN = [
    ("**bold** and *thin* and [link](https://example.com/a?b=1&c=2)", 'href="https://example.com/a?b=1&amp;c=2"'),
    ("# Title\n\n- one\n- two", "<li>one</li>"),
    ("| a | b |\n|---|---|\n| 1 | 2 |", "<td>1</td>"),
    ("a < b && b > c", "a &lt; b &amp;&amp; b &gt; c"),
    ("AT&T and &amp; stay", "AT&amp;T and &amp;\u200bamp; stay"),
    ("use `x < y` here", "<code>x &lt; y</code>"),
    ("use `<b>` here", "<code>&lt;b&gt;</code>"),
    ("text\n```python\nif a < b: print('<b>')\n```\nmore", "if a &lt; b: print("),
    ("```html\n<b>&amp;</b>\n```", "&lt;b&gt;&amp;amp;&lt;/b&gt;"),
    ("<b>not bold</b>", "&lt;b&gt;not bold&lt;/b&gt;"),
    ("The data: one, two", "The data"),
]


@pytest.mark.parametrize(("text", "holds"), MARKDOWN, ids=[text for text, _ in MARKDOWN])
def test_honest_markdown_still_reads_well(text, holds):
    markdown_it = pytest.importorskip("markdown_it")
    html = markdown_it.MarkdownIt("commonmark", {"html": True}).enable("table").render(safe.markdown(text))
    from html import unescape

    assert unescape(holds) in unescape(html)


def test_an_open_fence_does_not_swallow_the_quiet_line():
    source = display.bundle(["look:\n```python\nprint(1)"], line="nano · llamacpp")["text/markdown"]
    assert source.endswith("```\n\n<small>nano · llamacpp</small>")
    assert source.count("```") == 2


def test_plain_text_has_no_control_characters():
    assert safe.plain("a\x1b[31mb\x07\r\nc\rd\te\u202e") == "a[31mb\nc\nd\te"


def made(text="hello", reason="stop", n=1, logprobs=None, **changes):
    choices = tuple(Choice(text, (1, 2, 3), reason, logprobs, seed=7 + i) for i in range(n))
    fields = {
        "choices": choices,
        "usage": Usage(5, 3 * n),
        "timings": Timings(0.012, 0.112, 2),
        "model": "nano",
        "engine": "llamacpp",
        "quant": "F16",
        "params": SamplingParams(max_tokens=64),
        "messages": (Message("user", "hi"),),
    }
    return Completion(**{**fields, **changes})


@pytest.mark.parametrize(
    ("reason", "says"),
    [("stop", "stop"), ("length", "stopped at max_tokens (64)"), ("interrupted", "interrupted"), ("error", "failed")],
)
def test_the_quiet_line(reason, says):
    assert display.completion_line(made(reason=reason)) == (
        f"nano · llamacpp · F16 · 3 tokens · 20.0 tokens/s · TTFT 12 ms · {says}"
    )


def test_the_quiet_line_without_a_token():
    empty = made("", usage=Usage(5, 0), timings=Timings(None, 0.0, 0))
    assert display.completion_line(empty) == "nano · llamacpp · F16 · 0 tokens · stop"


def test_several_ends_are_all_said():
    mixed = made(choices=(Choice("a", (1,), "stop"), Choice("b", (1,), "length")))
    assert display.completion_line(mixed).endswith(" · stop, stopped at max_tokens (64)")


def test_a_completion_shows_itself():
    assert made("**hi**")._repr_markdown_().startswith("**hi**\n\n<small>nano · ")
    assert display.completion_text(made("hi")).startswith("hi\n\n[nano · ")


def test_log_probabilities():
    tokens = (
        TokenLogprob(1, " Par", -0.105, ((1, " Par", -0.105), (2, "<b>", -3.0))),
        TokenLogprob(2, "|\n", -2.3, ()),
    )
    view = display.logprobs(made(logprobs=tokens))
    assert re.search(r"' Par'\s+-0\.105\s+90\.0 %", view.text())
    assert "'|\\n'" in view.text()
    assert "&lt;b&gt;" in view._repr_html_()
    assert judged(view._repr_html_()) == []
    for render in renderers().values():
        html = render(view.markdown())
        assert html.count("<tr>") == 3, html
        assert judged(html) == []
    assert "--logprobs" in display.logprobs(made()).text()
    assert "1 more token" in display.LogprobsView(made(logprobs=tokens), rows=1).text()


def test_a_choice_shows_itself():
    view = display.ChoiceView(made("<b>", n=2).choices[1])
    assert view.text() == "<b>\n\n[3 tokens · stop · seed 8]"
    assert judged(view._repr_html_()) == []


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.00 kB"),
        (10_400_000, "10.4 MB"),
        (999_700_000, "1.00 GB"),
        (1_250_000_000, "1.25 GB"),
        (4.5e12, "4.50 TB"),
    ],
)
def test_sizes(value, text):
    assert units.size(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (0.0004, "0.4 ms"),
        (0.012, "12 ms"),
        (0.0999, "0.1 s"),
        (0.3, "0.3 s"),
        (3.44, "3.4 s"),
        (9.97, "10 s"),
        (42.4, "42 s"),
        (125, "2 min 5 s"),
    ],
)
def test_durations(value, text):
    assert units.seconds(value) == text


@pytest.mark.parametrize(("value", "text"), [(5147.3, "5,147"), (99.96, "100"), (48.31, "48.3"), (0.0521, "0.0521")])
def test_speeds(value, text):
    assert units.speed(value) == f"{text} tokens/s"


def test_parameters():
    assert [units.parameters(n) for n in (None, 512, 5_800_000, 999_900_000, 7_240_000_000)] == [
        "-",
        "512",
        "5.80 M",
        "1.00 B",
        "7.24 B",
    ]


def test_a_table_is_aligned_and_escaped():
    table = Table(("name", "size>"), [("短い", "1.0 MB"), ("<b>a\nb</b>", "10.0 MB")], note="<i>")
    lines = table.text().split("\n")
    assert lines[0] == "name           size"
    assert lines[2] == "短い         1.0 MB"
    assert lines[3] == "<b>a b</b>  10.0 MB"
    assert judged(table.html()) == []
    assert "&lt;b&gt;" in table.html()
    assert Table(("a",), [], empty="<nothing>").html().count("&lt;nothing") == 1


def test_a_name_in_a_table_is_not_broken_at_its_hyphens():
    html = Table(("name", "about"), [("smollm2-135m", "a small-model test of words")]).html()
    assert re.search(r"white-space:nowrap[^>]*>smollm2-135m<", html)
    assert re.search(r"white-space:pre-wrap[^>]*>a small-model", html)


def test_runs_are_our_own_table_and_still_a_frame():
    rows = [
        {
            "at": pd.Timestamp("2026-11-26 20:00:01.234567", tz="UTC") + pd.Timedelta(minutes=i),
            "conversation": "aa",
            "source": "cell",
            "model": "nano",
            "quant": "F16",
            "adapter": "",
            "prompt": f"number {i}: " + "long words " * 20 + "<b>",
            "text": "yes",
            "completion_tokens": 3,
            "tokens_per_s": 123.456789,
        }
        for i in range(60)
    ]
    shown = as_runs(pd.DataFrame(rows), "runs.db")
    html = shown._repr_html_()
    assert "2026-11-26 20:59<" in html
    assert "123<" in html
    assert "&lt;b&gt;" in html  # a long prompt wraps
    assert "number 9:" not in html
    assert "10 older runs not shown." in html
    assert "text-align:right" not in re.search(r"<td[^>]*>yes<", html)[0]
    assert type(shown[["model"]]) is pd.DataFrame
    assert type(pickle.loads(pickle.dumps(shown))) is pd.DataFrame
    assert len(shown) == 60


def test_pairs():
    assert pairs_text({"a": "1", "long": "2\n3"}) == "a     1\nlong  2 3"
    assert "&lt;x&gt;" in pairs_html({"a": "<x>"})


def test_views_escape_what_comes_from_outside():
    evil = "<script>alert(1)</script>"
    check = SimpleNamespace(name=evil, status="warn", detail=evil, fix=evil)
    conversation = display.views.Conversation([Message("user", evil), Message("assistant", evil)])
    header = SimpleNamespace(
        path=evil, files=(evil,), name=evil, format=evil, architecture=evil, parameters=1, quant=evil, weight_bytes=1,
        context_length=1, layers=1, hidden=1, heads=1, kv_heads=1, head_dim=1, vocab_size=1, tokenizer=evil,
        chat_template=evil, licence=evil, tensors=(SimpleNamespace(dtype=evil, bytes=1),),
    )  # fmt: skip
    entry = SimpleNamespace(
        name=evil,
        packages=(),
        parameters=1,
        context_length=1,
        licence=evil,
        description=evil,
        path=None,
        kind=evil,
        quants=lambda _: (evil,),
    )
    form = SimpleNamespace(engine=evil, quant=evil, format=evil, bytes=1, action=evil, where=evil)
    views = [
        display.DoctorView(SimpleNamespace(checks=(check,))),
        display.HistoryView(conversation),
        display.HeaderView(header),
        display.Catalogue([entry]),
        display.FormsView(evil, [form]),
        display.LogView(evil),
        display.Note(evil),
    ]
    for view in views:
        assert judged(view._repr_html_()) == [], type(view).__name__
        assert evil in repr(view)
        assert "color:inherit" in view._repr_html_() or "<table" not in view._repr_html_()


def test_a_model_says_each_thing_once_in_one_kind_of_unit(model):
    """Weights, KV cache and context stood there twice, in MB and in MiB."""
    from llmlab.display import ModelView

    pairs = ModelView(model)._pairs()
    names = [name for name, _ in pairs]
    assert len(set(names)) == len(names)
    assert {"weights", "KV cache", "context"} <= set(names)
    assert "MiB" not in ModelView(model).text()
    assert "GiB" not in ModelView(model).text()
    assert dict(pairs)["KV cache"].count("B, ") == 1
