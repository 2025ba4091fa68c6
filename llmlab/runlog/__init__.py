"""The run log: prompts and completions on disk, independent of the kernel.

It is one SQLite file in the data folder (`llmlab.config.data_dir()`). Completions are only appended; a chat's
transcript is updated in place, with versions and ratings. `llmlab.runs()` reads it, `%llm history --prune AGE` deletes
old entries; the environment variable `LLMLAB_RUN_LOG=off` turns it off.
"""

from llmlab.runlog.ledger import Correction, Ledger
from llmlab.runlog.log import RunLog
from llmlab.runlog.rows import Kept

__all__ = ["Correction", "Kept", "Ledger", "RunLog"]
