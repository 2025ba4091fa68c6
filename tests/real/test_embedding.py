"""Embeddings and reranking on both engines, against transformers in float32, and the routes that serve them."""

import subprocess

import httpx
import numpy as np
import ollama
import openai
import pytest

from llmlab.errors import BadInputError, LlmLabError, UnsupportedError
from llmlab.files import pooling
from llmlab.files.headers import read_header
from tests.conftest import ENGINES
from tests.real import embedders

TEXTS = ["The cat sits on the mat.", "A feline rests on a rug.", "Quarterly revenue grew by 12 %.", "", "naïve 東京 🐈"]
QUERY = "What is a model?"
DOCUMENTS = ["A model is loaded in an engine.", "It rains in Spain.", "tokens " * 60]


def _files(make):
    try:
        folder = make()
        return {"vllm": folder, "llamacpp": embedders.gguf(folder)}
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"its files can't be fetched or made: {error}")


@pytest.fixture(scope="module")
def lab():
    from llmlab import Lab

    made = Lab()
    yield made
    made.close()


def _load(lab, make, engine):
    name = f"{make.__name__.replace('_', '-')}-{engine}"
    return lab.models.get(name) or lab.load(str(_files(make)[engine]), engine=engine, name=name)


@pytest.fixture(params=ENGINES)
def minilm(request, lab):
    return _load(lab, embedders.minilm, request.param)


@pytest.fixture(scope="module")
def reference():
    """The vectors that transformers computes, before they are normalized."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    folder = _files(embedders.minilm)["vllm"]
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        each = [model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(0).numpy() for text in TEXTS]
    return np.stack(each)


def _scores(folder):
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        return [float(model(**tokenizer(QUERY, text, return_tensors="pt")).logits) for text in DOCUMENTS]


def test_vectors_are_those_of_transformers(minilm, reference):
    found = minilm.embed(TEXTS)
    assert found.dtype == np.float32
    assert found.shape == reference.shape
    lengths = np.linalg.norm(reference, axis=1)
    assert (found * reference).sum(1) / lengths == pytest.approx(1, abs=1e-4)
    assert np.linalg.norm(found, axis=1) == pytest.approx(1, abs=1e-5)
    assert np.linalg.norm(minilm.embed(TEXTS, normalize=False), axis=1) == pytest.approx(lengths, rel=1e-2)


def test_similar_texts_are_near_each_other(minilm):
    cat, feline, revenue = minilm.embed(TEXTS[:3])
    assert cat @ feline > 0.5 > 0.2 > cat @ revenue


def test_a_text_does_not_depend_on_its_batch(minilm):
    texts = [f"{word} " * count for word, count in zip(["a", "dog", "runs", "far"] * 40, range(1, 161), strict=True)]
    together = minilm.embed(texts)
    alone = np.concatenate([minilm.embed([text]) for text in texts[::20]])
    assert (together[::20] * alone).sum(1) == pytest.approx(1, abs=1e-4)


def test_what_it_refuses(minilm):
    with pytest.raises(UnsupportedError, match="generates no text"):
        minilm.generate("Hi")
    with pytest.raises(UnsupportedError, match="generates no text"):
        minilm.score([1, 2, 3])
    with pytest.raises(UnsupportedError, match="no reranker"):
        minilm.rerank("a", ["b"])
    with pytest.raises(BadInputError, match="602 tokens"):
        minilm.embed(["fine", "x " * 600])
    with pytest.raises(BadInputError, match="list of texts"):
        minilm.embed("one")
    with pytest.raises(BadInputError, match="must be a text, got int"):
        minilm.embed([1])
    with pytest.raises(LlmLabError, match=r"(?s)Unknown pooling 'max'.*mean"):
        minilm.embed(["a"], pooling="max")
    assert minilm.embed(["x " * 600], truncate=True).shape == (1, 384)
    assert minilm.embed([]).shape[0] == 0


def test_a_generating_model_embeds_when_told_how(llamacpp, vllm):
    with pytest.raises(BadInputError, match="pooling='mean'"):
        llamacpp.embed(["a"])
    plain, other = llamacpp.embed(["Paris is in France.", "Paris is in France."], pooling="last")
    assert plain == pytest.approx(other, abs=1e-3)
    with pytest.raises(UnsupportedError, match="to generate or to embed"):
        vllm.embed(["a"], pooling="mean")


def test_its_hidden_state_is_that_of_transformers(llamacpp, vllm):
    import torch
    from transformers import AutoModel

    text = "The capital of France"
    model = AutoModel.from_pretrained(vllm.path, dtype=torch.float32)
    with torch.no_grad():
        state = model(torch.tensor([llamacpp._live().input_ids(text)])).last_hidden_state[0]
    for pooled, expected in (("mean", state.mean(0)), ("last", state[-1])):
        found = llamacpp.embed([text], pooling=pooled)[0]
        assert float(found @ expected.numpy()) / float(expected.norm()) == pytest.approx(1, abs=1e-3)


def test_an_adapter_changes_the_vector(llamacpp):
    llamacpp.add_adapter("pirate-vector", "pirate")
    try:
        base, own = (
            llamacpp.embed(["Who are you?"], pooling="mean", adapter=one)[0] for one in (None, "pirate-vector")
        )
        assert base @ own < 0.999
    finally:
        llamacpp.remove_adapter("pirate-vector")


def test_an_embedding_model_leaves_the_cells_to_the_current_one(lab):
    lab.load("nano", engine="llamacpp", name="writer")
    _load(lab, embedders.minilm, "llamacpp")
    assert lab.current.name == "writer"


@pytest.mark.parametrize(
    ("make", "engine"),
    [
        (embedders.bert_reranker, "vllm"),
        (embedders.roberta_reranker, "vllm"),
        (embedders.roberta_reranker, "llamacpp"),
    ],
)
def test_scores_are_those_of_transformers(lab, make, engine):
    model = _load(lab, make, engine)
    expected = _scores(_files(make)["vllm"])
    tolerance = 1e-3 if engine == "vllm" else 2e-2  # the GGUF file has float16 weights
    assert model.rerank(QUERY, DOCUMENTS, raw=True) == pytest.approx(expected, abs=tolerance)
    scaled = model.rerank(QUERY, DOCUMENTS)
    assert scaled == pytest.approx(1 / (1 + np.exp(-np.array(expected))), abs=tolerance)
    with pytest.raises(UnsupportedError, match="reranker"):
        model.embed(["a"])


def test_a_cross_encoder_with_token_types_is_refused_where_they_are_lost(lab):
    model = _load(lab, embedders.bert_reranker, "llamacpp")
    with pytest.raises(UnsupportedError, match="same type"):
        model.rerank(QUERY, DOCUMENTS)


def test_the_files_say_what_a_model_is(vllm):
    folder = _files(embedders.minilm)
    assert pooling.of(read_header(folder["vllm"])) == pooling.Embedding("mean", normalize=True)
    assert read_header(folder["vllm"]).context_length == 256
    assert pooling.of(read_header(folder["llamacpp"])) == pooling.Embedding("mean", normalize=True)
    assert pooling.of(read_header(vllm.path)) is None
    ranks = _files(embedders.roberta_reranker)
    assert all(pooling.of(read_header(path)) == pooling.Embedding("rank", normalize=False) for path in ranks.values())


@pytest.fixture(scope="module")
def served(lab):
    from llmlab.serving import start

    for engine in ENGINES:
        _load(lab, embedders.minilm, engine)
    _load(lab, embedders.roberta_reranker, "llamacpp")
    running = start(lab, port=0)
    yield running
    running.stop()


def test_the_routes(served, minilm):
    client = openai.OpenAI(base_url=f"{served.url}/v1", api_key="none")
    expected = minilm.embed(TEXTS[:3])
    found = client.embeddings.create(model=minilm.name, input=TEXTS[:3])  # the client asks for base64
    assert np.array([one.embedding for one in found.data]) == pytest.approx(expected, abs=1e-3)
    assert found.usage.prompt_tokens == sum(minilm.count_tokens(text) for text in TEXTS[:3])
    plain = client.embeddings.create(model=minilm.name, input=TEXTS[0], encoding_format="float")
    assert plain.data[0].embedding == pytest.approx(list(expected[0]), abs=1e-3)
    own = ollama.Client(served.url).embed(minilm.name, [TEXTS[0], "x " * 600])
    assert own.embeddings[0] == pytest.approx(list(expected[0]), abs=1e-3)
    with pytest.raises(openai.BadRequestError, match="384 dimensions"):
        client.embeddings.create(model=minilm.name, input="a", dimensions=12)
    with pytest.raises(openai.BadRequestError, match="token ids"):
        client.embeddings.create(model=minilm.name, input=[[1, 2]])
    with pytest.raises(openai.BadRequestError, match="602 tokens"):
        client.embeddings.create(model=minilm.name, input="x " * 600)


def test_the_reranking_route(served, lab):
    model = _load(lab, embedders.roberta_reranker, "llamacpp")
    body = {"model": model.name, "query": QUERY, "documents": DOCUMENTS, "top_n": 2, "return_documents": True}
    found = httpx.post(f"{served.url}/v1/rerank", json=body, timeout=60).json()["results"]
    scores = model.rerank(QUERY, DOCUMENTS)
    best = np.argsort(-scores)[:2]
    assert [one["index"] for one in found] == list(best)
    assert [one["relevance_score"] for one in found] == pytest.approx(list(scores[best]), abs=1e-3)
    assert found[0]["document"]["text"] == DOCUMENTS[best[0]]
    failed = httpx.post(f"{served.url}/v1/rerank", json=body | {"top_n": 0}, timeout=60)
    assert failed.status_code == 400
