"""The run log: what was asked and answered, on disk, so that it outlives the kernel.

One SQLite file in the data folder (`llmlab.config.data_dir()`). Completions are only ever added; the transcript of a
chat is kept as it stands, versions and ratings included. `llmlab.runs()` reads it, `%llm history --prune AGE` shortens
it, the environment variable `LLMLAB_RUN_LOG=off` turns it off.
"""

from llmlab.runlog.log import RunLog
from llmlab.runlog.rows import Kept

__all__ = ["Kept", "RunLog"]
