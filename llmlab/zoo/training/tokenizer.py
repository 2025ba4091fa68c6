"""Trains and saves the zoo's tokenizer: byte-level BPE with the GPT-2 split, numbers digit by digit."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from llmlab.zoo.training import corpus
from llmlab.zoo.training.example import Dialog
from llmlab.zoo.training.model import CONTEXT, VOCAB_SIZE
from llmlab.zoo.training.template import CHAT_TEMPLATE, END, PAD, SPECIALS, render

_TRAINING_DIALOGS = 40_000
# The mix that the tokenizer was trained on; fixed, so that changing the training mix doesn't change the tokenizer.
_MIX = {**corpus.WEIGHTS, "extract": 22, "system": 11}


def train(dialogs: Iterable[Dialog] | None = None, vocab: int = VOCAB_SIZE, more: Sequence[str] = ()) -> Any:
    """Train the merges on the corpus.

    Args:
        dialogs: The training dialogs; default: the first dialogs of the training stream.
        vocab: The vocabulary size, including special tokens.
        more: Special tokens after the template's.

    Returns:
        A ``tokenizers.Tokenizer``.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

    specials = [*SPECIALS, *more]

    def split_specials(text: str) -> str:
        for special in specials:
            text = text.replace(special, "\x00")
        return text

    source = dialogs or islice(corpus.training_dialogs(seed=1, weights=_MIX), _TRAINING_DIALOGS)
    texts = (part for d in source for part in split_specials(render(d.messages, d.tools)).split("\x00") if part)
    made = Tokenizer(models.BPE())
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    # Training sees every digit alone, so the plain GPT-2 split that is saved gives single digits too.
    made.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), level])
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=specials,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        min_frequency=2,
        show_progress=False,
    )
    made.train_from_iterator(texts, trainer)
    made.pre_tokenizer = level
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(
        [AddedToken(s, lstrip=False, rstrip=False, normalized=False, special=True) for s in specials]
    )
    return made


def save(made: Any, folder: Path, template: str = CHAT_TEMPLATE) -> None:
    """Write the tokenizer's files.

    Args:
        made: A ``tokenizers.Tokenizer``.
        folder: The target folder.
        template: The chat template.
    """
    folder.mkdir(parents=True, exist_ok=True)
    made.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_bos_token": False,
        "add_eos_token": False,
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": CONTEXT,
        "eos_token": END,
        "pad_token": PAD,
        "bos_token": None,
        "unk_token": None,
        "chat_template": template,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", "utf-8")
    (folder / "chat_template.jinja").write_text(template, "utf-8")


def load(folder: Path) -> Any:
    """Read a saved tokenizer.

    Args:
        folder: Its folder.

    Returns:
        A ``tokenizers.Tokenizer``.
    """
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(folder / "tokenizer.json"))
