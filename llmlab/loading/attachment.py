"""The plan of an attached model: its server's address and settings, checked before the server is asked."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING

from llmlab.engines.base import LoadPlan
from llmlab.engines.registry import ATTACHED
from llmlab.errors import BadInputError
from llmlab.files.source import Source
from llmlab.loading.plan import DEFAULT_CONCURRENCY, Planned
from llmlab.options import AttachOptions

if TYPE_CHECKING:
    from llmlab.model import Model

IMPORTS = ("httpx", "httpx._transports.default", "llmlab.engines.remote")
_BAD = ":+,= \t\n"


def plan_attach(url: str, options: AttachOptions, *, count: Callable[[str], int] | None) -> Planned:
    """Check the options of an attachment. Errors as `llmlab.attach`.

    Args:
        url: the server's address.
        options: the keywords of `llmlab.attach`.
        count: counts a text's tokens with the model's tokenizer, if there is one here.
    """
    from llmlab.engines.remote.address import Address, Key
    from llmlab.engines.remote.engine import check_prices

    ctx, max_concurrency, timeout = options.get("ctx"), options.get("max_concurrency"), options.get("timeout")
    model = options.get("model")
    for option, value, low in (("ctx", ctx, 16), ("max_concurrency", max_concurrency, 1)):
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < low):
            raise BadInputError(f"{option} must be an integer, {low} or more, got {value!r}.")
    if timeout is not None and not (isinstance(timeout, int | float) and timeout > 0):
        raise BadInputError(f"timeout must be a number of seconds above 0, got {timeout!r:.40}.")
    address = Address.of(url)
    Key(options.get("key_env"))
    extra = {
        "url": address.api,
        "model": model,
        "key_env": options.get("key_env"),
        "timeout": timeout,
        "prices": check_prices(options.get("prices")),
        "count": count,
        "fields": dict(options.get("fields") or {}),
    }
    # Nothing of it is on this machine.
    source = Source(address.root, options.get("name") or model or address.host, "api", Path(os.devnull), "")
    plan = LoadPlan(source, ctx or 0, max_concurrency=max_concurrency or DEFAULT_CONCURRENCY, extra=extra)
    return Planned(ATTACHED, f"attached at {address.root}", plan, None)


def free_name(model: Model, taken: Collection[str]) -> str:
    """A name for an attached model: its id on the server, and the server if a model has that name."""
    from llmlab.engines.remote.address import Address

    there = model.facts.model_id.rstrip("/").rpartition("/")[2].removesuffix(":latest")
    there = there.removesuffix(".gguf")
    name = "".join("-" if c in _BAD else c for c in there) or "attached"
    return name if name not in taken else f"{name}@{Address.of(model.source.spec).host.replace(':', '-')}"
