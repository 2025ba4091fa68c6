"""Recorded distributions along a text: the likeliest tokens of each position, and the text's own next token."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

from llmlab import _imports

TOP = 20
"""Tokens kept per position, beside the text's own: about 230 bytes in the file."""
NOTE = f"the {TOP} likeliest tokens of each distribution, and the text's own, are exact; the rest is spread evenly"


def pack(rows: Any, following: Sequence[int]) -> dict[str, Any]:
    """Distributions as JSON data.

    Args:
        rows: float32, shape (positions, vocabulary): natural log probabilities.
        following: the text's next token at each position.

    Returns:
        `tokens` (int32) and `logprobs` (float32), row by row as base64, and `kept`, the tokens per row.
    """
    _imports.load("numpy")
    import numpy as np

    kept = min(TOP + 1, rows.shape[1])
    tokens = np.argpartition(rows, -kept, axis=1)[:, -kept:]
    own = np.asarray(following)
    # The text's own token takes the place of the least likely one.
    least = np.take_along_axis(rows, tokens, axis=1).argmin(axis=1)
    absent = np.nonzero((tokens != own[:, None]).all(axis=1))[0]
    tokens[absent, least[absent]] = own[absent]
    values = np.take_along_axis(rows, tokens, axis=1)
    return {"kept": kept, "tokens": _text(tokens.astype("<i4")), "logprobs": _text(values.astype("<f4"))}


def unpack(row: Mapping[str, Any], vocabulary: int) -> Any:
    """The distributions, float32, shape (positions, vocabulary); the rest of the probability is spread evenly."""
    _imports.load("numpy")
    import numpy as np

    kept = int(row["kept"])
    tokens = np.frombuffer(base64.b64decode(row["tokens"]), dtype="<i4").reshape(-1, kept)
    values = np.frombuffer(base64.b64decode(row["logprobs"]), dtype="<f4").reshape(-1, kept)
    left = np.maximum(1.0 - np.exp(values.astype(np.float64)).sum(axis=1), 1e-9)
    rows = np.empty((len(tokens), vocabulary), dtype=np.float32)
    rows[:] = np.log(left / max(vocabulary - kept, 1))[:, None]
    np.put_along_axis(rows, tokens.astype(np.int64), values, axis=1)
    return rows


def _text(array: Any) -> str:
    return base64.b64encode(array.tobytes()).decode()
