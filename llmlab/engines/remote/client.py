"""HTTP requests on a thread of their own: retries, errors in words, lines of a stream."""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import json
import random
import threading
import time
from collections.abc import AsyncGenerator, Coroutine, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from llmlab.engines.remote.address import Address, Key
from llmlab.errors import GenerationError, LlmLabError

if TYPE_CHECKING:
    import httpx

    from llmlab.engines.base import EngineLog

ATTEMPTS = 5
FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 60.0
CONNECT_S = 10.0
PROBE_S = 10.0
RETRIED = frozenset({408, 429, 500, 502, 503, 504, 529})
LONGEST_MESSAGE = 600
Result = TypeVar("Result")


class RefusedError(GenerationError):
    """The server refused a request. `status` is HTTP's."""

    def __init__(self, message: str, hint: str = "", *, status: int = 0, said: str = "") -> None:
        super().__init__(message, hint)
        self.status = status
        self.said = said


@dataclass
class Counts:
    """What a client did: requests that were answered, and those that were tried again."""

    requests: int = 0
    retries: int = 0


class Client:
    """The connection to one server.

    Args:
        address: where it is.
        key: its key.
        log: what happens is written to it, without the key.
        connections: most requests at once.
        timeout_s: longest silence of the server, before the first token too.
    """

    def __init__(self, address: Address, key: Key, log: EngineLog, *, connections: int, timeout_s: float) -> None:
        self.address = address
        self.key = key
        self.counts = Counts()
        self.timeout_s = timeout_s
        self._log = log
        self._connections = connections
        self._http: httpx.AsyncClient | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="llmlab-remote", daemon=True)
        self._thread.start()

    # -- any thread ----------------------------------------------------------------------------

    def start(self, work: Coroutine[Any, Any, None]) -> Future[None]:
        """Run a coroutine on the client's thread; the future's `cancel` ends it."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def call(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Run a coroutine on the client's thread and wait for its result. Ctrl-C ends it."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def close(self) -> None:
        """End the requests and the thread."""
        if self._loop.is_closed():
            return

        async def end() -> None:
            tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if self._http is not None:
                await self._http.aclose()

        with contextlib.suppress(Exception):
            asyncio.run_coroutine_threadsafe(end(), self._loop).result(5)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        if not self._thread.is_alive():
            self._loop.close()

    def note(self, text: str) -> None:
        """Write a line to the log."""
        self._log.write(self.key.scrubbed(text) + "\n")

    # -- the client's thread -------------------------------------------------------------------

    def _client(self) -> httpx.AsyncClient:
        if self._http is None:
            import httpx

            self._http = httpx.AsyncClient(
                auth=self.key.auth(),
                timeout=httpx.Timeout(self.timeout_s, connect=CONNECT_S),
                limits=httpx.Limits(max_connections=self._connections + 4, max_keepalive_connections=self._connections),
                # A redirect would take the key to another host. A proxy isn't used for this machine's own servers.
                follow_redirects=False,
                trust_env=not self.address.local,
                headers={"User-Agent": "llmlab"},
            )
        return self._http

    async def get(self, url: str, *, needed: bool = False) -> Any:
        """The JSON at an address; None if there is none. For probes: not retried.

        Args:
            url: the address.
            needed: a server that is busy, loading or elsewhere is an error, not one without this address.

        Raises:
            GenerationError: the server can't be reached, or refuses the key.
        """
        return await self._probe("GET", url, None, needed=needed)

    async def ask(self, url: str, body: Mapping[str, Any]) -> Any:
        """What a server answers to a POST with JSON; None if it has no such route. Not retried.

        Raises:
            GenerationError: the server can't be reached, or refuses the key.
        """
        return await self._probe("POST", url, body)

    async def _probe(self, method: str, url: str, body: Mapping[str, Any] | None, *, needed: bool = False) -> Any:
        import httpx

        try:
            answer = await self._client().request(method, url, **_sent(body), timeout=PROBE_S)
        except httpx.TimeoutException:
            raise GenerationError(
                f"The server at {self.address.host} didn't answer within {PROBE_S:.0f} s ({url}).",
                "Is it still loading its model? Try again.",
            ) from None
        except (httpx.HTTPError, OSError) as error:
            raise self._unreachable(error) from None
        if answer.status_code in (401, 403):
            raise self._refusal(answer.status_code, answer.text)
        if needed and (answer.status_code in RETRIED or answer.is_redirect):
            raise self._refusal(answer.status_code, answer.text)
        if answer.status_code != 200:
            return None
        try:
            return answer.json()
        except ValueError:
            return answer.text[:200]

    async def lines(self, url: str, body: Mapping[str, Any]) -> AsyncGenerator[str, None]:
        """The lines of a streamed answer. Refused and failed requests are tried again until the first line.

        Raises:
            GenerationError: the server refused the request, failed, or closed the connection.
        """
        import httpx

        for attempt in range(1, ATTEMPTS + 1):
            began = False
            wait: float | None
            try:
                async with self._client().stream("POST", url, **_sent(body)) as answer:
                    if answer.status_code == 200:
                        self.counts.requests += 1
                        async for line in answer.aiter_lines():
                            began = True
                            yield line
                        return
                    said = (await answer.aread()).decode("utf-8", "replace")
                    error: GenerationError = self._refusal(answer.status_code, said)
                    wait = _wait(answer.status_code, answer.headers, said, attempt)
            except httpx.ConnectTimeout as problem:
                error, wait = self._unreachable(problem), _backoff(attempt) if attempt < 3 else None
            except httpx.TimeoutException:
                raise GenerationError(
                    f"The server at {self.address.host} was silent for {self.timeout_s:g} s.",
                    "Attach it with a longer --timeout, or see what it is doing.",
                ) from None
            except httpx.HTTPError as problem:
                if began:
                    raise GenerationError(
                        f"The server at {self.address.host} closed the connection before the answer ended "
                        f"({type(problem).__name__})."
                    ) from None
                error = self._unreachable(problem)
                wait = _backoff(attempt) if attempt < 3 else None
                if attempt == 1 and isinstance(problem, httpx.RemoteProtocolError):
                    wait = 0.0  # a connection that was kept open, and that the server had just closed
            if wait is None or attempt == ATTEMPTS:
                raise error
            self.counts.retries += 1
            self.note(f"{error.message} Trying again in {wait:.1f} s ({attempt} of {ATTEMPTS - 1}).")
            await asyncio.sleep(wait)

    def _unreachable(self, error: BaseException) -> GenerationError:
        reason = self.key.scrubbed(str(error)) or type(error).__name__
        return GenerationError(
            f"The server at {self.address.root} can't be reached: {reason:.200}.", "Is it running, at this port?"
        )

    def _refusal(self, status: int, body: str) -> RefusedError:
        said = _message(self.key.scrubbed(body))
        where = f"The server at {self.address.host}"
        if status in (401, 403):
            known = f"the key in {self.key.name}" if self.key.name else "a request without a key"
            hint = "Is the key right?" if self.key.name else "Name the variable that holds the key: --key-env VAR."
            return RefusedError(f"{where} refuses {known} ({status}): {said:.300}", hint, status=status, said=said)
        if status == 429:
            return RefusedError(
                f"{where} refuses more requests (429): {said:.300}",
                "Wait, or lower --max-concurrency.",
                status=status,
                said=said,
            )
        hint = "Is it still loading its model? Try again." if status in RETRIED else ""
        return RefusedError(f"{where} refused the request ({status}): {said:.500}", hint, status=status, said=said)


def _sent(body: Mapping[str, Any] | None) -> dict[str, Any]:
    """A request's body. httpx's own JSON can't have a lone surrogate; here it is escaped."""
    if body is None:
        return {}
    return {"content": json.dumps(body), "headers": {"Content-Type": "application/json"}}


def _message(body: str) -> str:
    """The message in an error's body, of OpenAI's, Ollama's, vLLM's or any other form, in one line."""
    try:
        value = json.loads(body)
    except ValueError:
        value = None
    for name in ("error", "message", "detail"):
        if isinstance(value, dict) and value.get(name):
            value = value[name]
    if isinstance(value, str):
        body = value
    return " ".join(body.split())[:500] or "no message"


def _backoff(attempt: int) -> float:
    return FIRST_WAIT_S * float(2 ** (attempt - 1)) * random.uniform(0.75, 1.25)  # noqa: S311 - no secret


def _wait(status: int, headers: Mapping[str, str], said: str, attempt: int) -> float | None:
    """Seconds to wait before another try; None: there is no use."""
    if status not in RETRIED or headers.get("x-should-retry") == "false" or "insufficient_quota" in said:
        return None
    asked = _retry_after(headers)
    if asked is not None:
        return asked if asked <= LONGEST_WAIT_S else None
    # Servers report their own faults as 500, too: one more try tells.
    return None if status == 500 and attempt > 1 else _backoff(attempt)


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """What the server asks for, in seconds: a number, or a date."""
    with contextlib.suppress(ValueError):
        return max(float(headers.get("retry-after-ms", "")) / 1000, 0.0)
    value = headers.get("retry-after", "")
    with contextlib.suppress(ValueError):
        return max(float(value), 0.0)
    with contextlib.suppress(ValueError, TypeError):
        return max(email.utils.parsedate_to_datetime(value).timestamp() - time.time(), 0.0)
    return None


def _shortened(text: str) -> str:
    return text if len(text) <= LONGEST_MESSAGE else f"{text[: LONGEST_MESSAGE - 1]}…"


def failed(error: BaseException, key: Key) -> LlmLabError:
    """An error for the reader of an answer: no other library's, whose traceback has the request's headers."""
    if isinstance(error, LlmLabError):
        error.message = _shortened(key.scrubbed(error.message))
        error.args = (error.message,)
        return error
    return GenerationError(f"The request failed: {type(error).__name__}: {key.scrubbed(str(error)):.300}.")
