"""Random texts under a guide, without a model: the validator must accept whatever the masks allow."""

import random

import numpy as np

CLOSING = ('"', '"}', "}", "]", '"]', "}}")


def walk(compiler, guide, seed, limit=500):
    """A random text under a guide; None if it didn't end within `limit` tokens."""
    rng = random.Random(seed)
    tokenizer = compiler.tokenizer
    end = tokenizer.eos_token
    closing = {i for i in range(tokenizer.vocab_size) if tokenizer.decode_str([i]) in CLOSING}
    matcher = compiler.matcher(guide)
    ids = []
    for _ in range(limit):
        mask = np.unpackbits(np.frombuffer(matcher.compute_bitmask(), dtype=np.uint8), bitorder="little")
        assert not matcher.is_error(), matcher.get_error().splitlines()[0]
        allowed = [int(i) for i in np.flatnonzero(mask)]
        assert allowed, "the mask leaves nothing"
        if end in allowed and (len(allowed) == 1 or rng.random() < 0.5):
            return tokenizer.decode_str(ids)
        closers = [i for i in allowed if i in closing] if rng.random() < 0.25 else []
        token = rng.choice(closers or [i for i in allowed if i != end])
        assert matcher.consume_token(token)
        ids.append(token)
    return None


def accepts(compiler, guide, text):
    """Whether the masks allow a complete text."""
    matcher = compiler.matcher(guide)
    ids = compiler.tokenizer.tokenize_str(text)
    return matcher.try_consume_tokens(ids) == len(ids) and bool(matcher.is_accepting())
