"""`%llm replay`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import ClassVar

from llmlab.display.views import Note
from llmlab.engines.replay import tape
from llmlab.engines.replay.cassette import Cassette
from llmlab.engines.replay.recording import Recorder
from llmlab.errors import BadInputError
from llmlab.magics.command import Command, Context
from llmlab.magics.parser import Parser


class Replay(Command):
    """Replay recorded answers, or record them."""

    name: ClassVar[str] = "replay"
    summary: ClassVar[str] = "answer from a file of recorded answers: no weights, no engine, no GPU"
    details: ClassVar[str] = """
        Models that are loaded from now on answer as they did when the file was recorded, token by token; a request that
        isn't in it fails, and the error says how it differs from the nearest one. Times are those of the recording, and
        marked so. A recording is written as the answers come, so that a killed kernel loses none; off ends it, or a
        replay. In Python: with llmlab.record_answers(path) and llmlab.replay_answers(path). Whole notebooks:
        llmlab run NOTEBOOK --record FILE, then --replay FILE.
    """
    examples: ClassVar[tuple[tuple[str, str], ...]] = (
        ("%llm replay --record answers.jsonl", "record from now on"),
        ("%llm replay off", "stop"),
        ("%llm replay answers.jsonl", "answer from the file from now on"),
    )

    @classmethod
    def arguments(cls, parser: Parser) -> None:
        """The file."""
        parser.add("file", nargs="?", metavar="FILE", complete="recording", help="the recorded answers; off: stop")
        parser.add("--record", metavar="FILE", complete="recording", help="record to FILE instead")

    @classmethod
    def run(cls, args: argparse.Namespace, context: Context) -> object:
        """Start or stop."""
        del context
        if (args.file is None) == (args.record is None):
            raise BadInputError("%llm replay takes a FILE, --record FILE, or off.", "%llm replay answers.jsonl")
        if args.record is not None:
            recorder = Recorder(Path(args.record))
            tape.start(recorder)
            return Note(f"Recording answers to {args.record}. End: %llm replay off", recorder)
        if args.file == "off":
            return _stopped(tape.stop())
        cassette = Cassette.read(Path(args.file))
        tape.start(cassette)
        names = ", ".join(dict.fromkeys(row["name"] for row in cassette.of("model"))) or "no model"
        answers = len(cassette.of("answer"))
        return Note(f"Replaying {answers:,} answers of {names} from {args.file}. End: %llm replay off", cassette)


def _stopped(found: Recorder | Cassette | None) -> Note:
    if found is None:
        return Note("Nothing was recorded or replayed.")
    if isinstance(found, Recorder):
        return Note(f"Recorded {found.answers:,} answers to {found.cassette.path}.", found)
    return Note(f"Replayed from {found.path} until now.", found)
