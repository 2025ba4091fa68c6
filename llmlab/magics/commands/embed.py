"""`%llm embed`."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from llmlab.errors import BadInputError
from llmlab.magics.command import Command, Context
from llmlab.magics.parser import Parser


class Embed(Command):
    """Embed texts."""

    name: ClassVar[str] = "embed"
    summary: ClassVar[str] = "vectors of texts: how similar they are, and a map"
    details: ClassVar[str] = """
        Each word in quotes is a text; a name is a variable with a text or several. Without --model it is the embedding
        model that is loaded. The value has .vectors, .similarity (cosines), .nearest(0) and .plot() (a map). In Python:
        model.embed(texts) is an array; a reranker has model.rerank(query, documents).
    """
    examples: ClassVar[tuple[tuple[str, str], ...]] = (
        ('%llm embed "The cat sat." "A feline rested."', "the cosine of two texts"),
        ("%llm embed titles --model all-minilm", "the texts in a variable"),
        ("%llm embed titles --model nano --pooling mean", "with a model that generates text (llamacpp)"),
    )

    @classmethod
    def arguments(cls, parser: Parser) -> None:
        """The texts and the model."""
        from llmlab.files.pooling import POOLINGS

        parser.add("texts", nargs="+", metavar="TEXT", complete="variable", help="texts, or variables with texts")
        parser.add("--model", metavar="NAME", complete="model", help="the model; default: the embedding model")
        parser.add("--pooling", choices=POOLINGS[:-1], help="how tokens' vectors become one; default: the model's")
        parser.add("--adapter", metavar="NAME", complete="adapter", help="an attached adapter")

    @classmethod
    def run(cls, args: argparse.Namespace, context: Context) -> object:
        """The texts with their vectors."""
        from llmlab.measure.similarity import embedded, embedder

        lab = context.lab
        own = [one for one in lab.models.values() if one.facts.embedding is not None]
        plain = args.pooling is not None and not own
        model = lab.get(args.model) if args.model or plain else embedder(own, None)
        texts = [text for word in args.texts for text in _texts(word, context.shell.user_ns)]
        return embedded(model, texts, pooling=args.pooling, adapter=args.adapter)


def _texts(word: str, names: Mapping[str, Any]) -> list[str]:
    """The texts in a variable, or the word itself."""
    if word not in names:
        return [word]
    value = names[word]
    if isinstance(value, str):
        return [value]
    found = list(value) if isinstance(value, Iterable) else []
    if not found or not all(isinstance(one, str) for one in found):
        raise BadInputError(f"%llm embed: {word} must hold texts, got {type(value).__name__}.", "Give a list of texts.")
    return found
