"""`%llm attach`."""

from __future__ import annotations

import argparse
from typing import ClassVar

from llmlab import _imports
from llmlab.display.live import ProgressBar
from llmlab.display.views import model_line
from llmlab.errors import BadInputError
from llmlab.magics.command import Command, Context
from llmlab.magics.parser import Parser, integer
from llmlab.magics.progress import reporting


class Attach(Command):
    """Attach a model that runs on a server."""

    name: ClassVar[str] = "attach"
    summary: ClassVar[str] = "attach a model of a server: llmlab's, vLLM, llama-server, Ollama, a cloud's"
    details: ClassVar[str] = """
        The model is used like a loaded one: cells, chats, arenas, lists of prompts, schemas, tools and benchmarks. What
        its server can't do is refused by name; %llm show NAME has what it can. The value is the model; %llm unload
        detaches it.

        The key is given by name: an environment variable, or an entry of the keyring under the service llmlab. It is
        read for each request and never kept, shown or logged. See docs/attach.md.
    """
    examples: ClassVar[tuple[tuple[str, str], ...]] = (
        ("%llm attach http://127.0.0.1:8000", "the only model of a server on this machine"),
        ("%llm attach http://127.0.0.1:11434 --model qwen3:8b --ctx 16384", "Ollama, with a context length"),
        ("%llm attach https://api.example.com/v1 --model large --key-env EXAMPLE_KEY --as far", "a cloud"),
        (
            "%llm attach https://api.example.com/v1 --model large --key-env EXAMPLE_KEY --prices 0.5,1.5",
            "with its cost",
        ),
    )

    @classmethod
    def arguments(cls, parser: Parser) -> None:
        """The server, the model and the key."""
        parser.add("url", metavar="URL", complete="server", help="where the server answers, with or without /v1")
        parser.add("--as", dest="name", metavar="NAME", help="its name in the lab (default: the model's id)")
        parser.add("--model", metavar="ID", help="the model's id on the server (default: the only one)")
        parser.add(
            "--key-env",
            metavar="VAR",
            complete="key",
            help="the environment variable that holds the server's key, or its name in the keyring",
        )
        parser.add("--ctx", type=integer, metavar="N", help="context length in tokens, where the server doesn't set it")
        parser.add("--max-concurrency", type=integer, metavar="N", help="most requests at once (default: 8)")
        parser.add("--timeout", type=float, metavar="SECONDS", help="longest silence of the server (default: 600)")
        parser.add(
            "--prices", metavar="IN,OUT", help="dollars per million prompt tokens and per million generated ones"
        )
        parser.add(
            "--tokenizer",
            metavar="NAME",
            complete="model",
            help="a loaded model with the same tokenizer, whose counts show when the server has cut a prompt",
        )

    @classmethod
    def run(cls, args: argparse.Namespace, context: Context) -> object:
        """Attach, with a status line; returns the Model."""
        prices = tuple(part.strip() for part in args.prices.split(",")) if args.prices is not None else None
        if prices is not None and len(prices) != 2:
            raise BadInputError(f"%llm attach: --prices takes IN,OUT, got {args.prices!r}.", "For example 0.5,1.5")
        _imports.load("llmlab.magics.commands.cell")
        title = f"attaching {args.name or args.model or args.url}"
        with reporting(ProgressBar(context.shell, title), title) as bar:
            model = context.lab.attach(
                args.url,
                name=args.name,
                model=args.model,
                key_env=args.key_env,
                ctx=args.ctx,
                max_concurrency=args.max_concurrency,
                timeout=args.timeout,
                prices=prices,
                tokenizer=args.tokenizer,
                progress=bar,
            )
        line = model_line(model)
        bar.finish(line)
        return context.silence.mark(model, cls.typed(), line)
