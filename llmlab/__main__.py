"""`python -m llmlab`: the same as the console script `llmlab`."""

from __future__ import annotations

import sys

from llmlab.cli import main

sys.exit(main())
