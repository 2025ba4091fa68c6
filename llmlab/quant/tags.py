"""The quant tags as the quant package offers them; the table itself lies in the hub, which names files by it."""

from llmlab.files.tags import TAGS, Tag, canonical, in_filename, names, of_ftype

__all__ = ["TAGS", "Tag", "canonical", "in_filename", "names", "of_ftype"]
