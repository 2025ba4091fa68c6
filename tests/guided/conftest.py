"""A guide compiler over nano's vocabulary, without a model."""

import pytest

from llmlab.guided.compiler import Compiler


@pytest.fixture(scope="session")
def compiler():
    """Compiles guides for nano's vocabulary."""
    from llguidance import LLTokenizer

    import llmlab.zoo

    folder = __import__("pathlib").Path(llmlab.zoo.__file__).parent / "models" / "nano"
    text = (folder / "tokenizer.json").read_text()
    end = __import__("tokenizers").Tokenizer.from_str(text).token_to_id("<|end|>")
    return Compiler(lambda: LLTokenizer(text, eos_token=end))
