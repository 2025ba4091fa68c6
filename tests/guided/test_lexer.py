"""The mask library's lexer has a limit, which the copies of a matcher share."""

import json

import numpy as np
import pytest

from llmlab.engines.base import Request
from llmlab.engines.guidance import Steer
from llmlab.engines.stream import Buffer
from llmlab.errors import GenerationError
from llmlab.guided import make
from llmlab.types import SamplingParams
from tests.guided.walker import accepts

WORDS = {"type": "string", "pattern": r"^(?:\S+\s+){0,99}\S+$", "maxLength": 300}
TEXT = json.dumps({"a": "Ab cd " * 40 + "e"})


def schema(name):
    return {"type": "object", "properties": {name: WORDS}}


def test_a_long_text_does_not_spoil_its_guide(compiler):
    guide = make(schema=schema("a"))
    assert compiler.begins(guide, TEXT[:-2])
    assert accepts(compiler, guide, '{"a": "Ab"}')


def test_a_guide_that_failed_is_compiled_again(compiler):
    guide = make(schema={**schema("a"), "title": "another"})
    request = Request("1", (1,), SamplingParams(max_tokens=300), Buffer(1), guide=guide)
    size = compiler.tokenizer.vocab_size
    steer = Steer(request, compiler, size, str)
    # Without masks in between, the lexer gets no new fuel.
    for token in compiler.tokenizer.tokenize_str(TEXT):
        if not steer.run.matcher.consume_token(token):
            break
    assert steer.run.matcher.is_error()
    assert not accepts(compiler, guide, '{"a": "Ab"}')
    with pytest.raises(GenerationError):
        steer.mask(np.zeros(size, dtype=np.float32))
    assert accepts(compiler, guide, '{"a": "Ab"}')
