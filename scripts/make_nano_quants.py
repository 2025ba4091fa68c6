"""Rebuild nano's awq and gptq checkpoints after its weights have changed, with llmcompressor in its own environment."""

import shutil
import sys

import llmlab
from llmlab import zoo


def main() -> int:
    """Make both and copy them into nano's folder."""
    for tag in ("awq", "gptq"):
        made = llmlab.quantize("nano", tag, progress=lambda phase, _: print(f"{phase:60}", end="\r"))
        place = zoo.path("nano") / tag
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(made.path, place)
        print(f"{place}: {made.bytes / 1e6:.2f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
