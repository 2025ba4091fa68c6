"""Redacts access tokens in prompts and completions."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

HIDDEN = "[secret removed]"

# Token formats: Hugging Face, OpenAI, GitHub, AWS, Slack, Google, JWT, HTTP bearer.
_FORMS = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{20,}|sk-[A-Za-z0-9_-]{20,}|gh[pousr]_[A-Za-z0-9]{30,}|github_pat_\w{30,}|A[KS]IA[A-Z0-9]{16}"
    r"|xox[abprs]-[A-Za-z0-9-]{10,}|AIza[A-Za-z0-9_-]{35}|eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,})"
    r"|(?<=Bearer )[A-Za-z0-9._~+/-]{20,}=*"
)
_NAMES = re.compile(r"(?:^|_)(?:TOKEN|SECRET|PASSWORD|PASSWD|APIKEY|KEY)$", re.IGNORECASE)
_SHORTEST = 10


def environment_secrets(environment: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """Values of environment variables that are named like secrets (HF_TOKEN, ..._KEY)."""
    found = os.environ if environment is None else environment
    values = {value for name, value in found.items() if _NAMES.search(name) and len(value) >= _SHORTEST}
    return tuple(sorted(values, key=len, reverse=True))


def redacted(text: str, secrets: tuple[str, ...] = ()) -> str:
    """A text with known token formats and the given secrets redacted."""
    for secret in secrets:
        text = text.replace(secret, HIDDEN)
    return _FORMS.sub(HIDDEN, text)
