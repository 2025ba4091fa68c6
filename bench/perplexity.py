"""Compare llmlab's perplexity with llama.cpp's own tool: the same GGUF file, the same text, within 1 %.

The tool is compiled once from the source distribution of the installed llama-cpp-python (about 10 minutes on two
cores) and cached. Usage: python bench/perplexity.py [QUANT ...]
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

import llmlab
from llmlab.measure import divergence, texts
from llmlab.quant import llamacpp_source

WINDOW = 512


def main(quants: list[str]) -> int:
    """Compare each quant; returns 1 if one differs by more than 1 %."""
    tool = llamacpp_source.tool("llama-perplexity", lambda phase, _: print(f"  {phase}", end="\r"))
    worst = 0.0
    for quant in quants:
        model = llmlab.load("nano", engine="llamacpp", quant=quant)
        text = "".join(item.render(model) for item in texts.read().items)
        # llama-perplexity reads the text of special tokens as plain text.
        cut = divergence.cut(model.tokenize(text, special=False), size=WINDOW, most=10**6)
        tally = divergence.Tally()
        scored = model.score_many(cut.ids, first=[cut.first] * len(cut.ids))
        for window, rows in zip(cut.ids, scored, strict=True):
            tally.add(window, cut.first, rows)
        ours = tally.result().perplexity
        with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            command = [
                str(tool),
                "-m",
                str(model.path),
                "-f",
                file.name,
                "-c",
                str(WINDOW),
                "-b",
                str(WINDOW),
                "-t",
                "1",
                "--no-escape",
            ]
            ran = subprocess.run(command, capture_output=True, text=True, check=False)
        found = re.search(r"Final estimate: PPL = ([\d.]+)", ran.stdout + ran.stderr)
        if found is None:
            print(ran.stdout[-500:], ran.stderr[-1500:])
            return 1
        theirs = float(found[1])
        worst = max(worst, abs(ours / theirs - 1))
        print(
            f"{quant:8} {len(cut.ids)} windows  llmlab {ours:.4f}  llama-perplexity {theirs:.4f}  {100 * (ours / theirs - 1):+.3f} %  ({Path(model.path).name})"
        )
    print(f"worst: {100 * worst:.3f} %")
    return int(worst > 0.01)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or ["F16", "Q4_K_M"]))
