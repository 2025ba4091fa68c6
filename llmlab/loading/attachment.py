"""The plan of an attached model: its server's address and settings, checked before the server is asked."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmlab.engines.base import LoadPlan
from llmlab.engines.registry import ATTACHED
from llmlab.engines.remote.address import Address, Key
from llmlab.engines.remote.engine import check_prices
from llmlab.errors import BadInputError
from llmlab.files.source import Source
from llmlab.loading.plan import DEFAULT_CONCURRENCY, Planned

if TYPE_CHECKING:
    from llmlab.model import Model

IMPORTS = ("httpx", "httpx._transports.default", "llmlab.engines.remote")
_BAD = ":+,= \t\n"


def plan_attach(
    url: str,
    *,
    name: str | None,
    model: str | None,
    key_env: str | None,
    ctx: int | None,
    max_concurrency: int | None,
    timeout: float | None,
    prices: Any,
    count: Callable[[str], int] | None,
    fields: Mapping[str, object] | None,
) -> Planned:
    """Check the options of an attachment. Arguments and errors as `Lab.attach`."""
    for option, value, low in (("ctx", ctx, 16), ("max_concurrency", max_concurrency, 1)):
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < low):
            raise BadInputError(f"{option} must be an integer, {low} or more, got {value!r}.")
    if timeout is not None and not (isinstance(timeout, int | float) and timeout > 0):
        raise BadInputError(f"timeout must be a number of seconds above 0, got {timeout!r:.40}.")
    address = Address.of(url)
    Key(key_env)
    extra = {
        "url": address.api,
        "model": model,
        "key_env": key_env,
        "timeout": timeout,
        "prices": check_prices(prices),
        "count": count,
        "fields": dict(fields or {}),
    }
    # Nothing of it is on this machine.
    source = Source(address.root, name or model or address.host, "api", Path(os.devnull), "")
    plan = LoadPlan(source, ctx or 0, max_concurrency=max_concurrency or DEFAULT_CONCURRENCY, extra=extra)
    return Planned(ATTACHED, f"attached at {address.root}", plan, None)


def free_name(model: Model, taken: Collection[str]) -> str:
    """A name for an attached model: its id on the server, and the server if a model has that name."""
    there = model.facts.model_id.rstrip("/").rpartition("/")[2].removesuffix(":latest")
    there = there.removesuffix(".gguf")
    name = "".join("-" if c in _BAD else c for c in there) or "attached"
    return name if name not in taken else f"{name}@{Address.of(model.source.spec).host.replace(':', '-')}"
