"""The worker of `llmlab.quant.checkpoints`. It runs in llmcompressor's environment and imports nothing from llmlab.

Its argument is a JSON file: model (folder), target (folder), scheme (awq, gptq, fp8, int8), ignore (list), group
(weights per scale of awq and gptq), length, seed, and calibration (a file with one JSON list of token ids per line;
null for schemes without calibration).
"""

import json
import os
import sys
from pathlib import Path
from typing import Any


def main(job_file: str) -> int:
    """Quantize one folder; returns 0 once the target is written."""
    job = json.loads(Path(job_file).read_text(encoding="utf-8"))
    os.environ.update(TOKENIZERS_PARALLELISM="false", HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1")
    say("import")
    import torch
    from compressed_tensors.quantization import preset_name_to_scheme
    from llmcompressor import oneshot
    from llmcompressor.modifiers.gptq import GPTQModifier
    from llmcompressor.modifiers.quantization import QuantizationModifier
    from llmcompressor.modifiers.transform.awq import AWQModifier
    from llmcompressor.pipelines.cache import IntermediatesCache
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if not torch.accelerator.is_available():
        # llmcompressor 0.14's AWQ pins memory for a copy to an accelerator, which raises without one.
        IntermediatesCache.pin_memory = lambda *_args, **_options: None
    say("weights")
    torch.manual_seed(job["seed"])
    model = AutoModelForCausalLM.from_pretrained(job["model"], dtype="auto")
    tokenizer = AutoTokenizer.from_pretrained(job["model"])
    common = {"targets": "Linear", "ignore": job["ignore"]}

    def grouped(preset: str) -> dict[str, Any]:
        scheme = preset_name_to_scheme(preset, ["Linear"])
        scheme.weights.group_size = job["group"]
        return {"config_groups": {"group_0": scheme}, "ignore": job["ignore"]}

    recipes = {
        "awq": lambda: [AWQModifier(duo_scaling="both"), QuantizationModifier(**grouped("W4A16_ASYM"))],
        "gptq": lambda: [GPTQModifier(**grouped("W4A16"))],
        "fp8": lambda: [QuantizationModifier(scheme="FP8_DYNAMIC", **common)],
        "int8": lambda: [GPTQModifier(scheme="W8A8", **common)],
    }
    options = {}
    if job["calibration"] is not None:
        from datasets import Dataset

        lines = Path(job["calibration"]).read_text(encoding="utf-8").splitlines()
        rows = [json.loads(line) for line in lines]
        data = Dataset.from_dict({"input_ids": rows, "attention_mask": [[1] * len(row) for row in rows]})
        options = {
            "dataset": data,
            "num_calibration_samples": len(rows),
            "max_seq_length": job["length"],
            "shuffle_calibration_samples": False,
        }
    say("calibrate" if options else "quantize")
    oneshot(model=model, tokenizer=tokenizer, recipe=recipes[job["scheme"]](), log_dir=None, **options)
    say("write")
    model.save_pretrained(job["target"], save_compressed=True)
    tokenizer.save_pretrained(job["target"])
    return 0


def say(phase: str) -> None:
    """Report the start of a phase to the parent process."""
    sys.stdout.write(f"\n@phase {phase}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
