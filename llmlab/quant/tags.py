"""Re-exports the quant tags of `llmlab.files.tags`."""

from llmlab.files.tags import TAGS, Tag, canonical, in_filename, names, of_ftype

__all__ = ["TAGS", "Tag", "canonical", "in_filename", "names", "of_ftype"]
