"""The base class of all widgets: messages to and from the page, errors with hints, the static form, closing."""

from __future__ import annotations

import importlib
import inspect
import threading
import weakref
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import anywidget
import traitlets as t

from llmlab.errors import LlmLabError, unknown
from llmlab.render.safe import BOX, plain
from llmlab.widgets.lab_state import Forms, Work, snapshot

if TYPE_CHECKING:
    from llmlab.model import Model
    from llmlab.session import Lab


class BenchWidget(anywidget.AnyWidget):  # type: ignore[misc]
    """A widget over a Lab.

    The page sends `{"do": NAME, ...}`; `ACTIONS` maps names to methods. Callbacks return immediately: slow work runs on
    a thread. All changes of state take one lock, because a front end may message a kernel on several threads
    (subshells), and engines answer on their own threads.
    """

    ACTIONS: ClassVar[Mapping[str, str]] = {}
    _closed = True  # until it is set up: ipywidgets closes a widget whose constructor failed

    lab_state = t.Dict().tag(sync=True)
    problem = t.Dict().tag(sync=True)
    static_class = t.Unicode().tag(sync=True)

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        # Otherwise editors show the `__new__(*args, **kwargs)` of traitlets.
        places = list(inspect.signature(cls.__init__).parameters.values())
        cls.__signature__ = inspect.Signature(places[1:])

    def __init__(self, lab: Lab | None = None, **traits: Any) -> None:
        for name in traits:
            if not self.has_trait(name):
                known = sorted(n for n in self.trait_names() if not n.startswith("_") and n not in _HIDDEN)
                raise unknown(f"{type(self).__name__} option", name, known)
        self._guard = threading.RLock()
        self._lab = lab
        self._forms = Forms()
        self._work = Work(self._on_lab_state, self._report)
        self._shown = False
        self._dirty = False
        self._closed = False
        super().__init__(**traits)
        self.static_class = f"llmlab-static-{self.model_id[:12]}"
        self._update_lab()
        self._unhook = _at_cell_end(self)

    # -- the Lab -----------------------------------------------------------------------------

    @property
    def lab(self) -> Lab:
        """The lab it uses, given or shared."""
        if self._lab is None:
            # The package's top level, above this layer, has the shared Lab.
            self._lab = importlib.import_module("llmlab").lab()
        assert self._lab is not None
        return self._lab

    def _update_lab(self) -> None:
        """Update the displayed state of the Lab."""
        state = snapshot(self.lab, self._forms, self._work)
        with self._guard:
            if state != self.lab_state:
                self.lab_state = state

    def _on_lab_state(self) -> None:
        if not self._closed:
            self._update_lab()

    def _load(self, spec: str, **options: Any) -> None:
        """Load a model in the background; `lab_state` has the progress."""
        if not spec.strip():
            raise LlmLabError("No model was named.", "Enter a catalogue name (nano), a path, or hf:org/repo.")
        self._work.start(f"loading {spec}", lambda progress: self.lab.load(spec.strip(), progress=progress, **options))

    def _switch_quant(self, name: str, quant: str) -> None:
        """Switch a loaded model to another quant in place, in the background."""
        model = self.lab.get(name)
        if quant == model.quant:
            return
        engine, spec, ctx = model.engine, model.source.spec, model.facts.context_length
        switch: Callable[..., Any] | None = getattr(self.lab, "switch_quant", None)

        def task(progress: Any) -> Any:
            was = self.lab.current
            try:
                if switch is not None:
                    return switch(quant, name=name, progress=progress)
                return self.lab.load(spec, engine=engine, quant=quant, name=name, ctx=ctx, progress=progress)
            finally:
                if was is not None and was.name in self.lab.models:
                    self.lab.use(was.name)

        self._work.start(f"switching {name} to {quant}", task)

    # -- messages ----------------------------------------------------------------------------

    def _handle_custom_msg(self, content: Any, buffers: Any) -> None:
        super()._handle_custom_msg(content, buffers)
        if not isinstance(content, Mapping) or "do" not in content:
            return
        arguments = {str(key): value for key, value in content.items() if key != "do"}
        self._act(str(content["do"]), arguments)

    def _act(self, name: str, arguments: dict[str, Any]) -> None:
        method = {**_COMMON, **self.ACTIONS}.get(name)
        try:
            with self._guard:
                if method is None:
                    raise unknown("message", name, [*_COMMON, *self.ACTIONS])
                if self.problem and name not in ("hello", "look"):
                    self.problem = {}
                getattr(self, method)(**arguments)
        except Exception as error:  # noqa: BLE001 - any error is shown in the widget
            self._report(error)

    def set_state(self, sync_data: Any) -> None:
        """State from the page; under the lock, because ipywidgets holds notifications while setting it."""
        with self._guard:
            super().set_state(sync_data)

    def _tell(self, **message: Any) -> None:
        """Send a message to every view. A closed page or widget is not an error."""
        if self._closed or self.comm is None:
            return
        with self._guard:
            super().send(message)  # `send` of a chat prompts the model

    def _report(self, error: BaseException) -> None:
        """Show an error with its hint."""
        if not self._closed:
            with self._guard:
                self.problem = described(error)

    def _do_hello(self, view: str = "") -> None:
        self._update_lab()
        self._tell(do="hello", view=view, live=self._live())

    def _do_look(self) -> None:
        self._update_lab()
        self._tell(do="looked")

    def _do_dismiss(self) -> None:
        self.problem = {}

    def _do_load(self, spec: str = "", engine: str = "auto", quant: str = "", name: str = "") -> None:
        self._load(spec, engine=engine, quant=quant.strip() or None, name=name.strip() or None)

    def _do_quant(self, name: str = "", quant: str = "") -> None:
        self._switch_quant(name, quant)

    def _live(self) -> dict[str, Any]:
        """The messages with which a new view catches up on running answers."""
        return {}

    # -- static form --------------------------------------------------------------------------

    def markdown(self) -> str:
        """The state as Markdown, for files and front ends without widgets."""
        raise NotImplementedError

    def html(self) -> str:
        """The state as HTML; all text from models and users is escaped."""
        raise NotImplementedError

    def text(self) -> str:
        """The state as plain text."""
        return plain(self.markdown())

    def static(self) -> dict[str, str]:
        """The MIME bundle saved in a notebook, for front ends without widgets.

        Example:
            >>> sorted(llmlab.panel().static())
            ['text/html', 'text/markdown', 'text/plain']
        """
        # If the notebook was saved without the widgets' state, the output before this one is only an error.
        lost = f".jp-OutputArea-child:not(:has(.llmlab-w)):has(+ .jp-OutputArea-child .{self.static_class})"
        style = f"<style>{lost}{{display:none}}</style>"
        body = f'<div class="{BOX} {self.static_class}">{style}{self.html()}</div>'
        return {"text/plain": self.text(), "text/markdown": self.markdown(), "text/html": body}

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        view, metadata = self._view_bundle()
        return {**view, **self.static()}, metadata

    def _view_bundle(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The live widget's bundle and metadata; on Colab the metadata selects the widget manager."""
        view, metadata = super()._repr_mimebundle_()
        # Fixed when it is displayed: a number of turns would be that of the start.
        return {**view, "text/plain": f"{type(self).__name__}: its content is in the next output."}, metadata

    def _ipython_display_(self) -> None:
        """Show the widget, and below it the static form, which the live widget hides.

        They are two outputs, so that the static one can be updated without rebuilding the widget on the page, and so
        that a reopened notebook shows the transcript if the widget's state wasn't saved.
        """
        from IPython.core.getipython import get_ipython
        from IPython.display import display

        from llmlab.display.live import has_front_end

        shell = get_ipython()
        if shell is None or not has_front_end(shell):
            print(self.text())  # noqa: T201 - a plain terminal
            return
        view, metadata = self._view_bundle()
        display(view, raw=True, metadata=metadata)
        display(self.static(), raw=True, display_id=self.static_class)
        self._shown, self._dirty = True, False

    def _changed(self) -> None:
        """Mark the static form as out of date."""
        self._dirty = True

    def _refresh_static(self) -> None:
        if not self._shown or not self._dirty or self._closed:
            return
        from IPython.display import update_display

        self._dirty = False
        update_display(self.static(), raw=True, display_id=self.static_class)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.lab!r}>"

    # -- closing -----------------------------------------------------------------------------

    def close(self) -> None:
        """Cancel running requests and remove the widget from the page.

        Example:
            >>> panel = llmlab.panel()
            >>> panel.close()
        """
        if self._closed:
            return
        self._cancel_all()
        self._closed = True
        self._unhook()
        super().close()

    def _cancel_all(self) -> None:
        """Cancel every request of this widget."""

    def _find(self, name: str) -> Model:
        """A loaded model by name; the current one for ""."""
        return self.lab.get(name or None)


_COMMON: dict[str, str] = {
    "hello": "_do_hello",
    "look": "_do_look",
    "dismiss": "_do_dismiss",
    "load": "_do_load",
    "quant": "_do_quant",
}
_HIDDEN = {"lab_state", "problem", "static_class", "comm", "keys", "log", "tooltip", "tabbable"}


def described(error: BaseException) -> dict[str, str]:
    """An error as data: its message and its hint."""
    if isinstance(error, LlmLabError):
        return {"message": error.message, "hint": error.hint}
    return {"message": f"{type(error).__name__}: {error}", "hint": ""}


def _at_cell_end(widget: BenchWidget) -> Callable[[], None]:
    """Update pickers and the static form after each cell, until the widget is closed."""
    from IPython.core.getipython import get_ipython

    shell = get_ipython()
    if shell is None:
        return lambda: None
    found = weakref.ref(widget)

    def after(*_: Any) -> None:
        alive = found()
        if alive is not None and not alive._closed:  # noqa: SLF001 - the widget's own hook
            alive._update_lab()  # noqa: SLF001
            alive._refresh_static()  # noqa: SLF001

    shell.events.register("post_run_cell", after)

    def unhook() -> None:
        if after in shell.events.callbacks["post_run_cell"]:
            shell.events.unregister("post_run_cell", after)

    weakref.finalize(widget, unhook).atexit = False
    return unhook
