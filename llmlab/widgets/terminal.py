"""The chat in a terminal: a prompt loop over the same conversation that the widget shows in a notebook."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from llmlab.display.live import Printer, quiet
from llmlab.errors import BadInputError, Interrupted, LlmLabError, unknown
from llmlab.render import units
from llmlab.render.safe import plain
from llmlab.tool_calls.options import ask_user
from llmlab.widgets import static_forms
from llmlab.widgets.tool_answer import ToolAnswering
from llmlab.widgets.transcript import Transcript

if TYPE_CHECKING:
    from llmlab.types import Completion
    from llmlab.widgets.chat import Chat
    from llmlab.widgets.pump import Answering

UPDATE_EVERY_S = 0.05
# An engine stops within a step; a second Ctrl-C doesn't wait for it.
STOP_S = 10.0


def is_terminal(shell: Any) -> bool:
    """Whether a person can type into this shell's terminal. A kernel, a script and a piped IPython are none."""
    from IPython.terminal.interactiveshell import TerminalInteractiveShell

    typed = sys.stdin is not None and sys.stdin.isatty() and sys.stdout.isatty()
    return typed and isinstance(shell, TerminalInteractiveShell)


class TerminalChat:
    """Asks, streams the answers, and runs the commands that begin with a slash.

    Args:
        chat: the conversation.
        shell: the IPython shell.
        ask: reads one message: (its prompt, earlier messages) to text; raises EOFError to end the chat. Default:
            prompt_toolkit, or `input` where IPython has a simple prompt.

    Example:
        >>> chat = llmlab.chat("nano", temperature=0)
        >>> typed = iter(["What is the capital of France?", "/undo"])
        >>> llmlab.widgets.terminal.TerminalChat(chat, ask=lambda prompt, past: next(typed, "/exit")).run()
        nano · llamacpp · F16
        Enter sends, Alt+Enter starts a new line, Ctrl-C stops an answer, Ctrl-D ends the chat. /help: commands
        The capital of France is Paris.
        ...
        Removed: What is the capital of France?
        >>> chat.messages
        []
    """

    COMMANDS: ClassVar[dict[str, tuple[str, str]]] = {
        "/help": ("", "list the commands"),
        "/system": ("[TEXT]", "set the system prompt; without TEXT, show it; /system none removes it"),
        "/undo": ("", "remove the last question and its answer"),
        "/retry": ("", "generate the last answer again"),
        "/continue": ("", "continue the last answer where it stopped"),
        "/model": ("[NAME]", "answer with another loaded model; without NAME, list them"),
        "/save": ("[FILE]", "write the conversation: .md, or .jsonl (one row for datasets)"),
        "/clear": ("", "start a new conversation"),
        "/exit": ("", "end the chat, as Ctrl-D does"),
    }

    def __init__(self, chat: Chat, shell: Any = None, *, ask: Callable[[str, list[str]], str] | None = None) -> None:
        self._chat = chat
        self._ask = ask or _prompt_of(shell, list(self.COMMANDS))

    def run(self) -> None:
        """Ask and answer until Ctrl-D or /exit."""
        model = self._chat.lab.get(self._chat.model or None)
        self._line(f"{model.name} · {model.engine} · {model.quant}")
        self._quiet(
            "Enter sends, Alt+Enter starts a new line, Ctrl-C stops an answer, Ctrl-D ends the chat. /help: commands"
        )
        self._recall()
        while True:
            try:
                text = self._ask("you> ", self._asked())
            except EOFError:
                return
            except KeyboardInterrupt:
                self._quiet("Ctrl-D or /exit ends the chat.")
                continue
            if text.strip() == "/exit":
                return
            if text.strip():
                self._take(text)

    # -- commands --------------------------------------------------------------------------------

    def _take(self, text: str) -> None:
        """Run a command, or send a message; errors are shown, and the chat goes on."""
        try:
            if text.startswith("/") and not text.startswith("//"):
                name, _, rest = text.strip().partition(" ")
                if name not in self.COMMANDS:
                    raise unknown("command", name, self.COMMANDS, "A message that begins with / is sent as //…")
                getattr(self, f"_{name[1:]}")(rest.strip())
            else:
                self._follow(self._chat.submit(text.removeprefix("/") if text.startswith("//") else text))
        except Interrupted:
            pass  # its text is shown
        except KeyboardInterrupt:
            self._line("")
        except LlmLabError as error:
            self._line(f"{error.message} {error.hint}".strip())
        except OSError as error:
            self._line(f"Can't write the file: {error}")

    def _help(self, _rest: str) -> None:
        width = max(len(f"{name} {more}") for name, (more, _) in self.COMMANDS.items())
        for name, (more, what) in self.COMMANDS.items():
            self._line(f"  {f'{name} {more}':<{width}}  {what}")

    def _system(self, rest: str) -> None:
        if rest:
            self._chat.system = "" if rest == "none" else rest
        self._line(f"System prompt: {self._chat.system or 'none'}")

    def _undo(self, _rest: str) -> None:
        asked = [turn for turn in self._path() if turn["role"] == "user"]
        if not asked:
            raise BadInputError("There is nothing to undo.")
        self._chat.delete(asked[-1]["id"])
        self._line(f"Removed: {asked[-1]['text']}")

    def _retry(self, _rest: str) -> None:
        self._follow(self._chat.regenerate())

    def _continue(self, _rest: str) -> None:
        self._follow(self._chat.continue_())

    def _model(self, rest: str) -> None:
        if rest:
            self._chat.switch(rest)
        now = self._chat.lab.get(self._chat.model or None).name
        self._line(", ".join(f"{name} (answers)" if name == now else name for name in self._chat.lab.models))

    def _save(self, rest: str) -> None:
        path = Path(rest or f"chat-{self._chat.conversation or 'now'}.md").expanduser()
        kind = {".md": "markdown", ".jsonl": "row"}.get(path.suffix)
        if kind is None:
            raise BadInputError(f"Can't save as {path.suffix or 'a file without a suffix'}.", "Use .md or .jsonl.")
        if kind == "row":
            body = json.dumps(self._chat.row(), ensure_ascii=False)
        else:
            body = static_forms.turns_markdown(self._path(), self._chat.system)
        with path.open("x", encoding="utf-8") as file:  # never over an existing file
            file.write(f"{body}\n")
        self._line(f"Saved: {path.resolve()}")

    def _clear(self, _rest: str) -> None:
        self._chat.clear()
        self._line("A new conversation.")

    # -- showing ---------------------------------------------------------------------------------

    def _follow(self, answering: Answering) -> None:
        """Print an answer as it arrives; Ctrl-C stops it and keeps its text."""
        printer, calls = Printer(), _Calls(self._chat, answering)
        try:
            while not answering.wait(UPDATE_EVERY_S):
                printer = calls.show(printer)
                printer.show(answering.thought, answering.text)
        except KeyboardInterrupt:
            answering.cancel()
            answering.wait(STOP_S)
        printer = calls.show(printer)
        printer.show(answering.thought, answering.text)
        printer.finish()
        self._status(answering.result())

    def _status(self, completion: Completion) -> None:
        self._quiet(f"[{static_forms.quiet_line(completion)}]")

    def _recall(self) -> None:
        """The turns of a resumed conversation."""
        path = self._path()
        if self._chat.system:
            self._quiet(f"System prompt: {self._chat.system}")
        for turn in path:
            self._line(f"you> {turn['text']}" if turn["role"] == "user" else str(turn["text"]))
            if turn.get("files"):
                self._quiet(f"Attached: {', '.join(file['name'] for file in turn['files'])}")

    def _path(self) -> list[dict[str, Any]]:
        return Transcript(self._chat.turns, self._chat.leaf).path()

    def _asked(self) -> list[str]:
        return [turn["text"] for turn in self._path() if turn["role"] == "user"]

    def _line(self, text: str) -> None:
        sys.stdout.write(plain(text) + "\n")
        sys.stdout.flush()

    def _quiet(self, text: str) -> None:
        sys.stdout.write(quiet(plain(text)) + "\n")
        sys.stdout.flush()

    def ended(self) -> str:
        """What to show after the chat: its length, and how to go on."""
        count = units.count(sum(turn["role"] == "assistant" for turn in self._path()), "answer")
        resume = f" · %llm chat --resume {self._chat.conversation}" if self._chat.conversation and self._path() else ""
        return f"chat: {count}{resume} · .messages has the conversation"


def _prompt_of(shell: Any, commands: list[str]) -> Callable[[str, list[str]], str]:
    """A function that reads one message from the terminal."""
    if getattr(shell, "simple_prompt", False):
        return lambda prompt, _past: input(prompt)
    from prompt_toolkit import PromptSession
    from prompt_toolkit.completion import WordCompleter
    from prompt_toolkit.history import InMemoryHistory
    from prompt_toolkit.key_binding import KeyBindings

    keys = KeyBindings()

    @keys.add("enter")
    def _send(event: Any) -> None:
        event.current_buffer.validate_and_handle()

    @keys.add("escape", "enter")
    @keys.add("c-j")
    def _new_line(event: Any) -> None:
        event.current_buffer.insert_text("\n")

    history = InMemoryHistory()
    session: PromptSession[str] = PromptSession(
        multiline=True,
        key_bindings=keys,
        prompt_continuation=lambda width, *_: "… ".rjust(width),
        completer=WordCompleter(commands, sentence=True),
        complete_while_typing=False,
        history=history,
    )

    def ask(prompt: str, past: list[str]) -> str:
        if not history.get_strings():  # of a resumed conversation
            for one in past:
                history.append_string(one)
        # IPython may run a cell inside an event loop, where prompt_toolkit can't start its own.
        return session.prompt(prompt, in_thread=_loop_is_running())

    return ask


def _loop_is_running() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


class _Calls:
    """The tool calls of an answer: prompted for, and printed with their results."""

    def __init__(self, chat: Chat, answering: Answering) -> None:
        self._chat = chat
        self._answering = answering
        self._count = 0
        self._printed: set[str] = set()

    def show(self, printer: Printer) -> Printer:
        """Prompt for each call that waits, and print those that have ended.

        Args:
            printer: prints the text; what it has printed before a call was the model writing the call.

        Returns:
            The printer of the text that follows.
        """
        steps = self._steps()
        if len(steps) > self._count:
            self._count = len(steps)
            print()  # noqa: T201 - a terminal
            printer = Printer()
        for call in self._chat.waiting:
            (self._chat.approve if ask_user(call) else self._chat.deny)(call.id)
        for step in self._steps():
            if step["state"] in ("done", "failed", "denied") and step["id"] not in self._printed:
                self._printed.add(step["id"])
                print(plain(" → ".join(static_forms.step_words(step))))  # noqa: T201
        return printer

    def _steps(self) -> list[dict[str, Any]]:
        return self._answering.steps if isinstance(self._answering, ToolAnswering) else []
