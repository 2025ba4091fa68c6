"""`%%llm`: prompt a model."""

from __future__ import annotations

import argparse
import keyword
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from llmlab.display import FORMATS, completion_line
from llmlab.display.live import UPDATE_EVERY_S, Answer
from llmlab.errors import BadInputError
from llmlab.magics import constraint, sampling, tooling
from llmlab.magics.command import CONTINUE, Command, Context
from llmlab.magics.expansion import expand
from llmlab.magics.parser import Parser, integer, number
from llmlab.tool_calls.stream import ToolStream
from llmlab.types import Completion, Message, SamplingParams

if TYPE_CHECKING:
    from llmlab.inference.conversation import Conversation, History
    from llmlab.inference.stream import Stream
    from llmlab.model import Model

# Poll more often until the first token arrives, so that it is shown without delay.
FIRST_LOOK_S = 0.02

_ESCAPES = {r"\n": "\n", r"\t": "\t", r"\r": "\r", r"\\": "\\"}


class Cell(Command):
    """Prompt a model: the cell's body is the prompt."""

    name: ClassVar[str] = "cell"
    summary: ClassVar[str] = "prompt the current model: the cell's body is the prompt, the answer streams below"
    details: ClassVar[str] = r"""
        {{name}} in the body is replaced with a variable's text ({{person.name}} and {{rows[0]}} too); \{{ is a literal
        {{. With --raw the body is sent unchanged: nothing is replaced, and no chat template is applied.

        On the first line, as on every %llm line, $name and {{name}} are replaced with a variable's text; the line is
        split into words by shell rules. A bare $name may become several words or none; "$name" and {{name}} are one
        word; single quotes keep everything literal. The values of --regex, --grammar, --schema, --choice, --stop and
        -s are taken as typed, with their $ and braces, unless the complete value is $name or {{name}}.

        Each cell starts a new conversation; -c continues the last one (%llm history shows it).
        --continue-answer continues the last answer itself, from its exact tokens: `%llm --continue-answer`, or a cell
        whose body is added to the answer first. --prefix gives the text that an answer begins with.
        An interrupt stops the answer and keeps the partial text; the status line says "interrupted".

        --schema, --type, --regex, --choice and --grammar constrain the answer; .parsed is the typed object (None if
        max_tokens was reached first); %llm guided --explain shows the effect of the constraint.

        --think sets whether a reasoning model thinks before it answers (on, off), how hard (low, medium, high), or the
        most tokens of its thought, which is closed there. The thought is folded above the answer, and in .reasoning.

        --tools f,g lets the model call plain Python functions (type hints, docstring) until it has an answer; each call
        is shown with its arguments, result and time, and is in .steps. --strict generates calls under their schema,
        --approve asks before each. Only the named functions are ever run; %llm tools shows their schemas.

        The value is the Completion (in _ and Out[n], or in VAR with -o VAR); it isn't displayed a second time.
        In Python: model.generate("...", temperature=0).
    """
    examples: ClassVar[tuple[tuple[str, str], ...]] = (
        ("%%llm\nWhat is the capital of France?", "stream an answer"),
        ("%%llm -t 0 --max-tokens 64 -o answer\nSummarize: {{text}}", "greedy, at most 64 tokens, stored in answer"),
        ('%%llm -m fast -s "Answer in French." -n 2 --seed 7\nHello!', "another model, a system prompt, two answers"),
        ("%%llm -a pirate:0.5\nHello!", "with an attached adapter at scale 0.5 (%llm lora add)"),
        ("%%llm -c\nAnd of Italy?", "continue the conversation"),
        ("%%llm --continue-answer\nAnd then", "continue the last answer, with these words added to it first"),
        ("%%llm --schema Person -o answer\nExtract the person: {{text}}", "JSON for a pydantic model: answer.parsed"),
        ("%%llm --choice yes,no\nIs this spam? {{text}}", "one of two answers"),
        ("%%llm --think 200\nWhat is 17 * 23?", "close the thought of a reasoning model after 200 tokens"),
        ("%%llm --tools add,search --strict\nHow much is 12 + 30?", "let the model call two of your functions"),
        ("%%llm -f json --stop END\nGive the record as JSON: {{sentence}}", "pretty-printed; the text ends before END"),
    )

    @classmethod
    def typed(cls) -> str:
        """What the user types."""
        return "%%llm"

    @classmethod
    def arguments(cls, parser: Parser) -> None:
        """The model, the sampling, and the output."""
        parser.add("-m", "--model", metavar="NAME", complete="model", help="a loaded model; default: the current one")
        parser.add(
            "-a",
            "--adapter",
            metavar="NAME[:SCALE]",
            complete="adapter",
            help="an attached adapter, or a mix a:0.7+b:0.3; none: the base model; default: set by %%llm lora use",
        )
        parser.add("-s", "--system", as_typed=True, metavar="SYSTEM", help="a system prompt")
        parser.add("-t", "--temperature", type=number, metavar="TEMP", help="0 is greedy; default: the model's own")
        parser.add(
            "--max-tokens", type=integer, metavar="N", help="maximum tokens to generate; default: 512, or what fits"
        )
        parser.add(
            "--top-p", type=number, metavar="P", help="sample from the most likely tokens up to this total probability"
        )
        parser.add("--top-k", type=integer, metavar="K", help="sample from the K most likely tokens; 0: all")
        parser.add(
            "--min-p",
            type=number,
            metavar="P",
            help="sample from tokens at least P times as likely as the most likely one",
        )
        parser.add("--seed", type=integer, metavar="N", help="the same seed gives the same text")
        parser.add(
            "--stop",
            as_typed=True,
            nargs="+",
            action="extend",
            default=[],
            metavar="S",
            help=r"stop before any of these strings; \n is a newline",
        )
        parser.add("-n", dest="n", type=integer, default=1, metavar="N", help="number of answers")
        parser.add("-o", "--out", metavar="VAR", complete="variable", help="store the Completion in this variable")
        sampling.add_options(parser)
        constraint.add_options(parser)
        tooling.add_options(parser)
        parser.add(
            "--logprobs",
            type=integer,
            metavar="K",
            help="log probabilities of each token and of the K most likely ones",
        )
        parser.add(
            "--think",
            type=sampling.think,
            metavar="HOW",
            complete="think",
            help="on, off, low, medium, high, or the most tokens of a reasoning model's thought (default: the model's)",
        )
        parser.add("-c", "--continue", dest="go_on", action="store_true", help="continue the last conversation")
        parser.add(
            CONTINUE, dest="continue_answer", action="store_true", help="continue the last answer where it stopped"
        )
        parser.add(
            "--prefix", as_typed=True, metavar="S", help=r"the text that the answer begins with; \n is a newline"
        )
        parser.add("--new", action="store_true", help="start a new conversation (the default without -c)")
        parser.add("--raw", action="store_true", help="send the body unchanged: no {{name}}, no chat template")
        parser.add("--no-stream", action="store_true", help="show the answer only when it is complete")
        parser.add("-f", "--format", choices=FORMATS, help="how to show the answer (default: md; json with --schema)")

    @classmethod
    def run(cls, args: argparse.Namespace, context: Context) -> object:
        """Generate, display and keep the answer; returns the Completion."""
        _check(args)
        if args.continue_answer:
            return _continued(args, context)
        params = _params(args)
        guided = constraint.options(args, context.shell.user_ns) | tooling.options(args, context.shell.user_ns)
        if args.format is None:
            args.format = "json" if "schema" in guided else "md"
        if args.adapter is not None:
            guided["adapter"] = args.adapter
        if args.prefix is not None:
            guided["prefix"] = _unescape(args.prefix)
        if args.think is not None:
            guided["think"] = args.think
        lab = context.lab
        model = lab.get(args.model)
        if args.raw:
            # IPython appends a newline to every body.
            text = args.body.removesuffix("\n")
            completion = _ask(model.stream(text, raw=True, params=params, **guided), args, context)
            lab.runlog.add(completion, source="cell")
        else:
            user = Message("user", expand(args.body, context.shell.user_ns).strip("\n").rstrip())
            conversation = _conversation(lab.history, args)
            completion = _ask(_stream(model, conversation, args.system, user, params, guided), args, context)
            if conversation is None:
                conversation = lab.history.start(args.system)
            conversation.add(user, completion)
            lab.runlog.add(completion, source="cell", conversation=conversation.id)
        return _result(completion, args, context)


def _params(args: argparse.Namespace) -> SamplingParams:
    """The sampling params of the line."""
    return SamplingParams(
        temperature=args.temperature,
        top_p=args.top_p,
        top_k=args.top_k,
        min_p=args.min_p,
        seed=args.seed,
        max_tokens=args.max_tokens,
        stop=tuple(_unescape(text) for text in args.stop),
        n=args.n,
        logprobs=args.logprobs,
        **sampling.options(args),
    )


def _result(completion: Completion, args: argparse.Namespace, context: Context) -> object:
    """Store the completion in a variable if the line names one; returns it as the cell's value."""
    if args.out:
        context.shell.user_ns[args.out] = completion
    return context.silence.mark(completion, (Cell.typed(), f"%llm {CONTINUE}"), completion_line(completion))


def _continued(args: argparse.Namespace, context: Context) -> object:
    """Continue the last answer of the current conversation, which is replaced by the longer one."""
    lab = context.lab
    conversation = lab.history.current
    if conversation is None or not conversation.completions:
        raise BadInputError("%%llm: there is no answer to continue.", "Send a prompt with %%llm first.")
    done = conversation.completions[-1]
    args.n, args.format = 1, args.format or "md"
    params = _params(args)
    body = expand(args.body, context.shell.user_ns).removesuffix("\n")
    if body or args.model or args.adapter:
        last = conversation.messages[-1]
        turns = [*conversation.messages[:-1], replace(last, content=last.content + body)]
        own = {"adapter": args.adapter} if args.adapter else {}
        stream = lab.get(args.model or done.model).stream(turns, params=params, **own)
    else:
        given = replace(params, max_tokens=None) != SamplingParams()
        stream = done.continue_stream(max_tokens=args.max_tokens, params=params if given else None)
    completion = _ask(stream, args, context)
    conversation.messages[-1] = completion.message
    conversation.completions[-1] = completion
    lab.runlog.add(completion, source="cell", conversation=conversation.id)
    return _result(completion, args, context)


def _check(args: argparse.Namespace) -> None:
    """Check the options before anything runs."""
    if args.out and (not args.out.isidentifier() or keyword.iskeyword(args.out)):
        raise BadInputError(f"%%llm: -o takes a variable's name, got {args.out!r}.", "For example -o answer")
    if args.continue_answer:
        _check_continued(args)
        return
    if not args.body.strip():
        raise BadInputError("%%llm: the cell has no text below its first line.", "Write the prompt there.")
    if args.go_on and args.new:
        raise BadInputError("%%llm: -c continues a conversation and --new starts one.", "Use one of them.")
    if args.raw and args.go_on:
        raise BadInputError("%%llm: --raw sends a text, not a conversation.", "Use -c without --raw.")
    if args.raw and args.system is not None:
        raise BadInputError(
            "%%llm: --raw sends the body unchanged, so there is no system prompt (-s).", "Remove one of them."
        )


def _check_continued(args: argparse.Namespace) -> None:
    """Check the options of --continue-answer, which has the prompt of the answer that it continues."""
    others = {
        "-c": args.go_on, "--new": args.new, "--raw": args.raw, "-s": args.system, "--prefix": args.prefix,
        "--tools": args.tools, "-n": args.n > 1, "--schema": args.schema, "--type": args.type, "--regex": args.regex,
        "--choice": args.choice, "--grammar": args.grammar,
    }  # fmt: skip
    wrong = next((name for name, value in others.items() if value), None)
    if wrong is not None:
        raise BadInputError(
            f"%%llm: {CONTINUE} continues the last answer, so it can't be combined with {wrong}.", f"Remove {wrong}."
        )


def _conversation(history: History, args: argparse.Namespace) -> Conversation | None:
    """The conversation to continue, or None: a new one starts once there is an answer to keep."""
    current = history.current if args.go_on else None
    if current is None or not current.messages:
        return None
    system = next((m.content for m in current.messages if m.role == "system"), None)
    if args.system is not None and args.system != system:
        raise BadInputError(
            "%%llm: the conversation has already started, and -s is another system prompt.",
            "Remove -s; or remove -c, to start a new one.",
        )
    return current


def _stream(
    model: Model,
    conversation: Conversation | None,
    system: str | None,
    user: Message,
    params: SamplingParams,
    guided: dict[str, Any],
) -> Stream:
    if conversation is None:
        return model.stream([user], system=system, params=params, **guided)
    return model.stream([*conversation.messages, user], params=params, **guided)


def _ask(stream: Stream, args: argparse.Namespace, context: Context) -> Completion:
    """Display a stream while it runs; an interrupt ends it and keeps the partial text."""
    if isinstance(stream, ToolStream):
        return tooling.ask(stream, args, context)
    show = Answer(context.shell, fmt=args.format, n=args.n, stream=not args.no_stream)
    texts: list[str] = [""] * args.n
    thoughts: list[tuple[str, int]] = []
    try:
        buffer = stream.start()
        while not stream.wait(UPDATE_EVERY_S if any(texts) or any(n for _, n in thoughts) else FIRST_LOOK_S):
            texts = [buffer.text(index) for index in range(args.n)]
            thoughts = [(buffer.reasoning(index), buffer.reasoning_tokens(index)) for index in range(args.n)]
            show.update(texts, thoughts)
        completion = stream.result()
    except KeyboardInterrupt:
        stream.cancel()
        completion = stream.partial()
    except Exception:
        if any(texts):
            show.update([buffer.text(index) for index in range(args.n)], thoughts, last=True)
        raise
    show.finish(completion)
    return completion


def _unescape(text: str) -> str:
    out: list[str] = []
    position = 0
    while position < len(text):
        pair = text[position : position + 2]
        out.append(_ESCAPES.get(pair, text[position]))
        position += 2 if pair in _ESCAPES else 1
    return "".join(out)
