"""A SavedModel, called as a program with TensorFlow alone calls it (docs/models.md has one)."""

from types import SimpleNamespace

import numpy as np
import pytest
from conftest import ROOT

import convert
from gpt2.conversion import to_saved_model
from gpt2.language_model import LanguageModel

MODEL = ROOT / "models" / "1M"
PROMPT = "KING RICHARD III:"
GREEDY = {"length": 40, "temperature": 0.0, "top_k": 0, "top_p": 1.0}
SAMPLED = {"length": 60, "temperature": 0.8, "top_k": 40, "top_p": 1.0}
NUCLEUS = {"length": 250, "temperature": 1.0, "top_k": 0, "top_p": 0.9}


def inputs(tokens, seed=8, sample=(1,), **settings):
    """The inputs of `generate`."""
    return {"tokens": tokens, "seed": seed, "sample": list(sample), **settings}


@pytest.fixture(scope="module")
def lm():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GPT2_ENGINE", "tensorflow")
        with LanguageModel(model_name=MODEL) as loaded:
            yield loaded


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "1M"
    convert.convert_to_saved_model("1M", str(folder))
    return folder


@pytest.fixture(scope="module")
def loaded(tf, saved):
    return tf.saved_model.load_v2(str(saved))


@pytest.fixture(scope="module")
def call(tf, loaded):
    """Runs a signature; its result as an array."""

    def call(name, **inputs):
        signature = loaded.signatures[name]
        specs = signature.structured_input_signature[1]
        (result,) = signature(
            **{name: tf.constant(value, specs[name].dtype) for name, value in inputs.items()}
        ).values()
        return result.numpy()

    return call


def texts(lm, rows):
    """The texts of samples, cut where the model ended them."""
    rows = [[*row, lm.end_of_text] for row in rows]
    return [lm.encoder.decode(row[: row.index(lm.end_of_text)]) for row in rows]


@pytest.mark.parametrize(
    ("prompt", "n", "settings"), [(PROMPT, 1, GREEDY), (PROMPT, 3, SAMPLED), (None, 1, NUCLEUS)]
)
def test_it_generates_the_tokens_of_the_model(lm, call, prompt, n, settings):
    ids = lm.encoder.encode(prompt) if prompt else [lm.end_of_text]
    found = call("generate", **inputs([ids] * n, sample=range(1, n + 1), **settings))
    assert found.shape == (n, settings["length"])  # also after an end of text
    assert texts(lm, found) == lm.generate(prompt, n, seed=8, **settings)
    alone = call("generate", **inputs([ids], sample=[n], **settings))
    assert (alone == found[-1:]).all()


def test_no_tokens_can_be_asked_for(call):
    assert call("generate", **inputs([[1]], **(GREEDY | {"length": 0}))).shape == (1, 0)


def test_its_logits_and_its_vocabulary_are_those_of_the_model(lm, saved, loaded, call):
    ids = lm.encoder.encode(PROMPT)
    expected = lm.logits([ids, ids[::-1]])
    assert np.allclose(call("logits", tokens=[ids, ids[::-1]]), expected, rtol=0, atol=1e-4)
    assert len(loaded.assets) == 2
    for name in ("encoder.json", "vocab.bpe"):
        assert (saved / "assets" / name).read_bytes() == (MODEL / name).read_bytes()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tokens": [[1] * 9], "length": 256}, "context and length together exceed n_ctx = 256"),
        ({"top_k": -1}, "top_k must be from 0 to n_vocab = 1280, got"),
        ({"tokens": [[1280]]}, "tokens must be from 1 to n_ctx = 256 ids from 0 to 1279"),
        ({"sample": [1, 2]}, "sample must have a number for each text"),
    ],
)
def test_wrong_input_is_refused_by_the_graph(tf, call, changes, message):
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        call("generate", **(inputs([[1]], **GREEDY) | changes))


@pytest.mark.parametrize("tokens", [[[-1]], [[0] * 257]])
def test_tokens_without_logits_are_refused_by_the_graph(tf, call, tokens):
    message = "tokens must be from 1 to n_ctx = 256 ids from 0 to 1279"
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        call("logits", tokens=tokens)


def test_the_graph_runs_anywhere_and_names_no_folder_of_its_maker(tf, saved):
    from tensorflow.core.protobuf import saved_model_pb2  # private, and only read here

    data = (saved / "saved_model.pb").read_bytes()
    (graph,) = saved_model_pb2.SavedModel.FromString(data).meta_graphs
    functions = graph.graph_def.library.function
    nodes = [*graph.graph_def.node, *(node for f in functions for node in f.node_def)]
    assert not [node.op for node in nodes if node.op.startswith("_")]
    assert not [f for f in functions if f.attr["_XlaMustCompile"].b]
    assert {node.device for node in nodes} <= {"", "/device:CPU:*", "/device:CPU:0"}
    assert str(ROOT).encode() not in data


def test_rows_without_a_token_are_never_generated(tf, tiny, monkeypatch):
    monkeypatch.setenv("GPT2_ENGINE", "tensorflow")
    vocabulary = SimpleNamespace(decoder={5: "a", 6: "b"})
    folder = SimpleNamespace(hparams=tiny.hparams, encoder=vocabulary)
    weights = {name: tf.constant(value) for name, value in tiny.weights.items()}
    signature = to_saved_model.build_signatures(tf, folder, weights)["generate"]
    values = inputs([[1, 2]] * 4, sample=range(4), **(SAMPLED | {"length": 8, "top_k": 0}))
    values |= {name: tf.constant(values[name], tf.int64) for name in ("seed", "sample")}
    values = {name: tf.convert_to_tensor(value) for name, value in values.items()}
    assert set(signature(**values)["tokens"].numpy().flat) == {5, 6}
