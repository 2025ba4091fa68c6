"""`%llm serve`."""

from __future__ import annotations

import argparse
from typing import ClassVar

from llmlab.display import Note
from llmlab.magics.command import Command, Context
from llmlab.magics.parser import Parser


class Serve(Command):
    """Serve the loaded models over HTTP."""

    name: ClassVar[str] = "serve"
    summary: ClassVar[str] = "serve the loaded models over HTTP, with OpenAI's, Anthropic's and Ollama's APIs"
    details: ClassVar[str] = """
        The server runs on a thread of the kernel. Its requests join the running batch with those of cells and widgets,
        and are in the run log. Every loaded model is served under its name, an adapter as MODEL:ADAPTER; what is
        loaded, switched or attached later is served too. The value is the server.

        Only this machine can connect, unless --host says otherwise, which needs a key. See docs/serving.md.
    """
    examples: ClassVar[tuple[tuple[str, str], ...]] = (
        ("%llm serve", "at http://127.0.0.1:8000/v1"),
        ("%llm serve --ollama", "on Ollama's port, where its clients look"),
        ("%llm serve --port 0", "on any free port"),
        ("%llm serve --host 0.0.0.0 --key $KEY", "for other machines; the key is in the variable KEY"),
        ("%llm serve --stop", ""),
    )

    @classmethod
    def arguments(cls, parser: Parser) -> None:
        """The address and the key."""
        parser.add("--port", type=int, metavar="N", help="the port (default: 8000); 0: any free one")
        parser.add(
            "--host", default="127.0.0.1", metavar="ADDRESS", help="the address to listen on (default: 127.0.0.1)"
        )
        parser.add("--key", metavar="KEY", help="the key that requests must have (default: LLMLAB_SERVE_KEY)")
        parser.add("--ollama", action="store_true", help="use Ollama's port, 11434")
        parser.add("--stop", action="store_true", help="stop the server; running requests end")

    @classmethod
    def run(cls, args: argparse.Namespace, context: Context) -> object:
        """Start or stop the server."""
        from llmlab.serving import start
        from llmlab.serving.server import OLLAMA_PORT, PORT

        lab = context.lab
        if args.stop:
            if lab.server is None:
                return Note("No server is running.")
            url = lab.server.url
            lab.server.stop()
            return Note(f"Stopped serving at {url}.")
        port = args.port if args.port is not None else OLLAMA_PORT if args.ollama else PORT
        server = start(lab, port=port, host=args.host, key=args.key)
        names = ", ".join(lab.models) or "no model is loaded yet"
        where = f"{server.url}/v1 (OpenAI) and {server.url} (Ollama, Anthropic)"
        return Note(f"Serving {names} at {where}. Stop: %llm serve --stop", server)
