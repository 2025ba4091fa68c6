"""`%llm quantize`."""

from __future__ import annotations

import argparse
from typing import Any, ClassVar

from llmlab.display import Note
from llmlab.display.live import ProgressBar
from llmlab.magics.command import Command, Context
from llmlab.magics.parser import Parser
from llmlab.magics.progress import reporting


class Quantize(Command):
    """Make a quant of a model."""

    name: ClassVar[str] = "quantize"
    summary: ClassVar[str] = "make a quant of a model: GGUF, awq, gptq, fp8 or int8; bf16 from a GGUF file"
    details: ClassVar[str] = """
        GGUF tags: the Hugging Face folder is converted to F16 (by llmlab if it can, else by llama.cpp's converter,
        which is downloaded once with the source distribution of llama-cpp-python), then quantized by llama.cpp's
        quantizer. --imatrix TEXT adds an importance matrix; llama.cpp's tool for it is compiled once (10 minutes).

        awq, gptq, fp8, int8: made by llmcompressor, in a separate environment created at first use (1.5 GB); --data
        calibrates awq, gptq and int8. vllm needs no checkpoint for fp8 and int8: with %llm load MODEL --quant fp8, vLLM
        quantizes at load time, and the status line says which method was used.

        bf16: expands a GGUF file (a plain Llama) to a Hugging Face folder, which vllm loads and from which other quants
        are made. The weights keep what the GGUF's quantization lost.

        The result is cached and used by %llm load MODEL --quant TAG.
        In Python: llmlab.quantize("nano", "Q4_K_M").
    """
    examples: ClassVar[tuple[tuple[str, str], ...]] = (
        ("%llm quantize nano --to Q4_K_M", "with llama.cpp's quantizer"),
        ("%llm quantize ./my-model --to IQ3_S --imatrix calibration.txt", "with an importance matrix of a text"),
        ("%llm quantize ./my-model --to awq --data texts", "with llmcompressor, calibrated on a variable"),
        ("%llm quantize ./model-Q4_K_M.gguf --to bf16", "a folder for vllm, expanded from a GGUF file"),
    )

    @classmethod
    def arguments(cls, parser: Parser) -> None:
        """The model and the tag."""
        parser.add(
            "model", metavar="MODEL", complete="catalogue", help="catalogue name, folder, GGUF file or hf:org/repo"
        )
        parser.add("--to", metavar="TAG", required=True, complete="quant", help="the quant to make")
        parser.add(
            "--imatrix", metavar="TEXT", complete="variable", help="text for an importance matrix: a variable or a file"
        )
        parser.add(
            "--data", metavar="DATA", complete="variable", help="calibration data: a variable, a file or a dataset"
        )

    @classmethod
    def run(cls, args: argparse.Namespace, context: Context) -> object:
        """Quantize, with a progress bar; returns the result (in `.value`)."""
        from llmlab.measure.calibration import quantize

        names = context.shell.user_ns
        bar = ProgressBar(context.shell, f"quantizing {args.model} to {args.to}")
        with reporting(bar, f"quantizing {args.model}"):
            made = quantize(
                args.model, args.to, imatrix=_value(args.imatrix, names), data=_value(args.data, names), progress=bar
            )
        bar.finish(made.line)
        return context.silence.mark(Note(made.line, made), cls.typed(), made.line)


def _value(given: str | None, names: dict[str, Any]) -> Any:
    return names[given] if given is not None and given in names else given
