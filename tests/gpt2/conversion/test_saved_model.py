"""A SavedModel, as a process loads it that has TensorFlow and nothing of this repository."""

import json
import os
import subprocess
import sys
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
FOREIGN = """
import json, os, sys
import tensorflow as tf
folder, calls = sys.argv[1], json.load(sys.stdin)
loaded = tf.saved_model.load(folder)
TYPES = {name: tensor.dtype for name, tensor in
         loaded.signatures["generate"].structured_input_signature[1].items()}
def call(name, **inputs):
    inputs = {k: tf.constant(v, TYPES[k]) for k, v in inputs.items()}
    try:
        (result,) = loaded.signatures[name](**inputs).values()
    except tf.errors.InvalidArgumentError as error:
        return error.message
    return result.numpy().tolist()
json.dump({
    "results": [call(name, **inputs) for name, inputs in calls],
    "assets": sorted(os.path.basename(a.asset_path.numpy()).decode() for a in loaded.assets),
    "modules": sorted(sys.modules),
}, sys.stdout)
"""


def generate(tokens, seed=7, sample=(1,), **settings):
    return "generate", {"tokens": tokens, "seed": seed, "sample": list(sample), **settings}


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
def foreign(saved, lm):
    """What another process got from the SavedModel."""
    ids = lm.encoder.encode(PROMPT)
    calls = {
        "logits": ("logits", {"tokens": [ids, ids[::-1]]}),
        "greedy": generate([ids], **GREEDY),
        "sampled": generate([ids], **SAMPLED),
        "nucleus": generate([[lm.end_of_text]], seed=8, **NUCLEUS),
        "batch": generate([ids] * 3, sample=[1, 2, 3], **SAMPLED),
        "third": generate([ids], sample=[3], **SAMPLED),
        "nothing": generate([ids], **(GREEDY | {"length": 0})),
        "too long": generate([ids], **(GREEDY | {"length": 256})),
        "bad top_k": generate([ids], **(GREEDY | {"top_k": -1})),
        "bad token": generate([[1280]], **GREEDY),
        "bad sample": generate([ids], sample=[1, 2], **GREEDY),
        "no token": ("logits", {"tokens": [[-1]]}),
        "long text": ("logits", {"tokens": [[0] * 257]}),
    }
    environment = os.environ | {"PYTHONPATH": "", "TF_CPP_MIN_LOG_LEVEL": "2"}
    environment = {k: v for k, v in environment.items() if not k.startswith("GPT2_")}
    done = subprocess.run(
        [sys.executable, "-c", FOREIGN, str(saved)],
        input=json.dumps(list(calls.values())),
        cwd=saved.parent,
        env=environment,
        capture_output=True,
        encoding="utf-8",
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    results = dict(zip(calls, found.pop("results"), strict=True))
    return SimpleNamespace(results=results, **found)


def text(lm, ids):
    """The text of a sample, cut where the model ended it."""
    ids = [*ids, lm.end_of_text]
    return lm.encoder.decode(ids[: ids.index(lm.end_of_text)])


@pytest.mark.end_to_end
def test_a_process_without_this_code_generates_the_same_tokens(lm, foreign):
    def expected(prompt, n, seed, settings):
        return lm.generate(prompt, n, seed=seed, **settings)

    found = {name: [text(lm, row) for row in foreign.results[name]] for name in
             ("greedy", "sampled", "nucleus", "batch")}  # fmt: skip
    assert found["greedy"] == expected(PROMPT, 1, 7, GREEDY)
    assert found["sampled"] == expected(PROMPT, 1, 7, SAMPLED)
    assert found["nucleus"] == expected(None, 1, 8, NUCLEUS)
    assert found["batch"] == expected(PROMPT, 3, 7, SAMPLED)
    assert foreign.results["third"] == foreign.results["batch"][2:]
    assert [len(row) for row in foreign.results["nucleus"]] == [250]  # also after an end of text
    assert foreign.results["nothing"] == [[]]
    ours = {"model", "decoder", "sample", "encoder", "gpt2", "hparams", "user_error"}
    assert not ours & set(foreign.modules)


@pytest.mark.end_to_end
def test_its_logits_and_its_vocabulary_are_those_of_the_model(lm, saved, foreign):
    ids = lm.encoder.encode(PROMPT)
    expected = lm.logits([ids, ids[::-1]])
    assert np.allclose(foreign.results["logits"], expected, rtol=0, atol=1e-4)
    assert foreign.assets == ["encoder.json", "vocab.bpe"]
    for name in foreign.assets:
        assert (saved / "assets" / name).read_bytes() == (MODEL / name).read_bytes()


@pytest.mark.end_to_end
@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("too long", "context and length together exceed n_ctx = 256"),
        ("bad top_k", "top_k must be from 0 to n_vocab = 1280, got"),
        ("bad token", "tokens must be from 1 to n_ctx = 256 ids from 0 to 1279"),
        ("bad sample", "sample must have a number for each text"),
        ("no token", "tokens must be from 1 to n_ctx = 256 ids from 0 to 1279"),
        ("long text", "tokens must be from 1 to n_ctx = 256 ids"),
    ],
)
def test_wrong_input_is_refused_by_the_graph(foreign, call, message):
    assert message in foreign.results[call]


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
    settings = SAMPLED | {"length": 8, "top_k": 0}
    _, inputs = generate([[1, 2]] * 4, sample=range(4), **settings)
    inputs |= {name: tf.constant(inputs[name], tf.int64) for name in ("seed", "sample")}
    inputs = {name: tf.convert_to_tensor(value) for name, value in inputs.items()}
    assert set(signature(**inputs)["tokens"].numpy().flat) == {5, 6}
