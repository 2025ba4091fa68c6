"""Images of requests: read and encoded on a thread of their own, then placed into the prompt as spans of tokens.

An image's tokens have no ids. In the list of a sequence's tokens they are negative numbers made from the image's hash,
so that the KV cache is reused only where the same image was computed.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmlab.engines import pictures
from llmlab.engines.base import EngineLog, Request
from llmlab.engines.llamacpp.logs import router
from llmlab.engines.llamacpp.mtmd import Chunk, Projector
from llmlab.errors import GenerationError, UnloadedError
from llmlab.machine import turns

if TYPE_CHECKING:
    from llmlab.engines.llamacpp.model import NativeModel

# Encoded images that are kept for the next turn of a conversation.
_KEPT_BYTES = 256 * 2**20
PLACES = (
    "<|vision_start|><|image_pad|><|vision_end|>",  # Qwen2-VL and later, Youtu-VL
    "<|begin_of_image|><|image|><|end_of_image|>",  # GLM-4V
    "<|media_start|>image<|media_content|><|media_pad|><|media_end|>",  # Kimi-VL
    "<|image_start|><image><|image_end|>",  # LFM2-VL
    "<start_of_image>",  # Gemma 3
    "<|image|>",  # Llama 4, Gemma 4
    "<image_soft_token>",
    "[IMG]",  # Pixtral, Mistral Small 3
    "<IMG_CONTEXT>",  # InternVL
    "<image>",  # LLaVA, Idefics3, SmolVLM, Granite
    "<|image_1|>",  # Phi-4
)
"""What chat templates write for an image; libmtmd adds the tokens around it by itself."""
_AROUND = {"gemma3": "\n\n"}
"""What transformers' processors write around an image, beyond what libmtmd adds; by `general.architecture`."""


@dataclass(frozen=True, slots=True)
class Span:
    """The tokens of a part of an image in a sequence.

    Attributes:
        start: its first token's index.
        tokens: how many tokens it has.
        positions: how many positions they take.
        chunk: the encoded part.
    """

    start: int
    tokens: int
    positions: int
    chunk: Chunk

    @property
    def end(self) -> int:
        """The index after its last token."""
        return self.start + self.tokens


@dataclass(frozen=True, slots=True)
class Seen:
    """A prompt with its images.

    Attributes:
        ids: token ids; negative ones for an image's tokens.
        spans: the parts of images in them.
        place: the id that stands for an image in the template: what penalties see in place of the negative ones.
    """

    ids: tuple[int, ...]
    spans: tuple[Span, ...]
    place: int


def lag(spans: Sequence[Span], index: int) -> int:
    """How far a token's position is behind its index, because of the parts of images before it."""
    return sum(span.tokens - span.positions for span in spans if span.end <= index)


def outside(spans: Sequence[Span], index: int) -> int:
    """The index, or the start of the part of an image that it is inside of: a part is computed as a whole."""
    return next((span.start for span in spans if span.start < index < span.end), index)


class ImageReader:
    """Reads and encodes the images of requests, one request after the other, on its own thread.

    Args:
        projector: the model's projector; freed by `close`.
        model: the language model, for its tokenizer.
        threads: CPU threads that an image is encoded with.
        log: receives libmtmd's messages.
    """

    def __init__(self, projector: Projector, model: NativeModel, threads: int, log: EngineLog) -> None:
        self.projector = projector
        self._model = model
        self._log = log
        self._threads = threads
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="llmlab-llamacpp-images")
        self._lock = threading.Lock()
        self._waiting: set[Request] = set()
        self._cancelled: set[Request] = set()
        self._cache: OrderedDict[bytes, tuple[list[list[int] | Chunk], int]] = OrderedDict()
        self._closed = False
        family = model.meta("general.architecture") or ""
        self._around = _AROUND.get(family, "")

    def read(self, request: Request, then: Callable[[Seen], None]) -> None:
        """Queue a request; `then` gets its prompt with the encoded images, on the reader's thread.

        If an image can't be read, the request's buffer fails; if it was cancelled, it ends as interrupted.
        """
        with self._lock:
            if not self._closed:
                self._waiting.add(request)
                self._pool.submit(self._work, request, then)
                return
        request.buffer.finish("interrupted", index=request.index)

    def cancel(self, request: Request) -> bool:
        """Whether the request was still waiting here; it then ends as interrupted."""
        with self._lock:
            if request not in self._waiting:
                return False
            self._cancelled.add(request)
        request.buffer.finish("interrupted", index=request.index)
        return True

    def close(self) -> None:
        """End the thread after the current image, and free the projector. A second call is a no-op."""
        with self._lock:
            self._closed = True
            waiting = list(self._waiting)
            self._cancelled |= self._waiting
        for request in waiting:
            request.buffer.finish("interrupted", index=request.index)
        self._pool.shutdown(wait=not turns.on_member(), cancel_futures=True)
        self._cache.clear()

    def _work(self, request: Request, then: Callable[[Seen], None]) -> None:
        turn = turns.CPU.join(self._threads)
        try:
            with router().to(self._log):
                seen = self._seen(request, turn)
            with self._lock:
                gone = request in self._cancelled
                self._waiting.discard(request)
                self._cancelled.discard(request)
            if not gone:
                request.buffer.prompt_is(len(seen.ids))
                then(seen)
        except (GenerationError, UnloadedError) as error:
            request.buffer.fail(error)
        except Exception as error:  # noqa: BLE001 - fails this request only
            request.buffer.fail(GenerationError(f"The images couldn't be read: {error}.", "See %llm logs."))
        finally:
            with self._lock:
                self._waiting.discard(request)
            turn.give()

    def _seen(self, request: Request, turn: turns.Turn) -> Seen:
        places, width, mark = self._places(request)
        ids: list[int] = []
        spans: list[Span] = []
        at = 0
        for place, image in zip(places, request.images, strict=True):
            before = request.prompt_ids[at:place]
            if ids and before and at:
                ids += self._model.tokenize(self._around, special=False)
            # Between two images, what is around them is one text.
            around = self._around if before or not at else 2 * self._around
            ids += [*before, *self._model.tokenize(around, special=False)]
            at = place + width
            if request in self._cancelled:
                break
            for part in self._parts(image, turn):
                if isinstance(part, list):
                    ids += part
                    continue
                base = int.from_bytes(hashlib.sha256(image).digest()[:6], "big") + len(spans)
                spans.append(Span(len(ids), part.tokens, part.positions, part))
                ids += [-(base << 16) - number - 1 for number in range(part.tokens)]
        ids += [*self._model.tokenize(self._around, special=False), *request.prompt_ids[at:]]
        if spans and spans[-1].end == len(ids):
            raise GenerationError("The prompt ends with an image, and the model can't answer there.", "Add a text.")
        return Seen(tuple(ids), tuple(spans), mark)

    def _places(self, request: Request) -> tuple[list[int], int, int]:
        """Where the prompt has images: the places, the tokens of each, and the first one's id."""
        prompt, wanted = request.prompt_ids, len(request.images)
        most = 0
        for text in PLACES:
            mark = tuple(self._model.tokenize(text, special=True))
            if any(self._model.piece(token) for token in mark) and len(mark) > 8:
                continue  # no special token of this vocabulary
            found = [at for at in range(len(prompt)) if prompt[at : at + len(mark)] == mark]
            if len(found) == wanted:
                return found, len(mark), mark[len(mark) // 2]
            most = max(most, len(found))
        raise GenerationError(
            f"The prompt has {most} places for images, and {wanted} image{'s' if wanted > 1 else ''}.",
            "The chat template may have none: convert the model again with its processor's template.",
        )

    def _parts(self, image: bytes, turn: turns.Turn) -> list[list[int] | Chunk]:
        key = hashlib.sha256(image).digest()
        if key in self._cache:
            self._cache.move_to_end(key)
            return self._cache[key][0]
        shown = pictures.read(image)
        turn.take()
        try:
            parts = self.projector.parts(shown.width, shown.height, shown.tobytes(), turn.share)
        except OSError as error:
            raise GenerationError(f"{error}.".capitalize(), "See %llm logs.") from None
        finally:
            turn.release()
        self._cache[key] = parts, sum(part.embeddings.nbytes for part in parts if not isinstance(part, list))
        while sum(size for _, size in self._cache.values()) > _KEPT_BYTES and len(self._cache) > 1:
            self._cache.popitem(last=False)
        return parts
