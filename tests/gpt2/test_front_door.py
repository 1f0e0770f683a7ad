"""`import gpt2`: text in, text and scores out, next to other models and eager execution."""

import copy
import doctest
import itertools
import os
import pickle
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT

import gpt2
import gpt2.language_model
import numpy_gpt2
from gpt2.model_folder import choose_model


@pytest.fixture(scope="module")
def lm():
    """A model for all tests, so that each batch size is compiled once: 1 and 2."""
    options = {"seed": 1, "length": 8, "batch_size": 2}
    with gpt2.load("1M", models_dir=str(ROOT / "models"), **options) as model:
        yield model


@pytest.fixture(scope="module")
def other(tiny):
    with gpt2.load(tiny.folder, length=8) as model:
        yield model


@pytest.fixture(scope="module")
def copied(tmp_path_factory):
    """The folder of a second 1M."""
    return shutil.copytree(ROOT / "models" / "1M", tmp_path_factory.mktemp("place") / "1M")


def test_the_examples_in_the_docstring_hold(lm, monkeypatch):
    monkeypatch.setattr(lm, "close", lambda: None)  # the other tests need it
    lm.change(seed=1)
    same = {"load": lambda name, seed: lm}
    result = doctest.testmod(gpt2.language_model, extraglobs=same)
    assert result.attempted >= 8 and not result.failed


def test_prompts_of_any_lengths_and_number_are_each_continued_as_if_alone(lm):
    prompts = ["KING", "To be, or not to be, that is the question:\n", "a"]  # more than a batch
    alone = [lm.generate(prompt, temperature=0) for prompt in prompts]
    assert lm.generate(prompts, temperature=0) == [text for [text] in alone]


def test_a_model_works_inside_a_graph_of_the_callers(tf, tiny):
    with tf.Graph().as_default(), gpt2.load(tiny.folder) as model:
        assert model.logits([[1, 2]]).shape == (1, 2, 1280)


def test_samples_of_a_prompt_differ_and_a_seed_repeats_them(lm):
    samples = lm.generate("KING", 3, seed=5)
    assert len(set(samples)) == 3
    assert lm.generate("KING", 3, seed=5) == samples
    assert lm.generate("KING", 3) != lm.generate("KING", 3)
    assert "".join(lm.stream("KING", seed=5)) == samples[0]
    one, two = (lm.generate(["KING", "ROMEO"], n, seed=5) for n in (1, 2))
    assert [two[0], two[2]] == one


def test_the_seed_of_a_model_repeats_a_whole_session(lm):
    sessions = []
    for _ in range(2):
        lm.change(seed=9)
        sessions.append([lm.generate("KING"), lm.generate("KING")])
    assert sessions[0] == sessions[1]
    assert sessions[0][0] != sessions[0][1]


def test_scores_and_logits_agree_with_numpy(tiny, other):
    ids = [[5, 6, 7], [900, 2, 1279]]
    expected = [numpy_gpt2.logits(tiny.hparams, tiny.weights, np.array(row)) for row in ids]
    np.testing.assert_allclose(other.logits(ids), expected, atol=1e-4)
    tokens = other.score("To be, or not to be")
    assert "".join(token.text for token in tokens) == "To be, or not to be"
    seen = np.array([other.end_of_text, *[token.id for token in tokens]])
    logits = numpy_gpt2.logits(tiny.hparams, tiny.weights, seen[:-1])
    logp = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    expected = logp[np.arange(len(tokens)), seen[1:]]
    np.testing.assert_allclose([token.logprob for token in tokens], expected, atol=1e-4)
    np.testing.assert_array_equal(
        [token.rank for token in tokens], 1 + (logp > expected[:, None]).sum(-1)
    )


def test_two_models_live_in_one_process_and_eager_execution_goes_on(lm, other):
    tensorflow = pytest.importorskip("tensorflow")
    before = lm.generate("KING", temperature=0)
    assert other.generate("KING", temperature=0) != before
    assert lm.generate("KING", temperature=0) == before
    assert tensorflow.constant(1.0).numpy() == 1


def test_streams_that_interrupt_each_other_give_the_texts_of_each_alone(lm):
    options = {"length": 40, "seed": 4}
    alone = [lm.generate(prompt, **options)[0] for prompt in ("KING", "Enter ROMEO")]
    streams = [lm.stream(prompt, **options) for prompt in ("KING", "Enter ROMEO")]
    texts = ["", ""]
    for pieces in itertools.zip_longest(*streams, fillvalue=""):
        texts = [text + piece for text, piece in zip(texts, pieces, strict=True)]
        lm.generate("a", length=1)
    assert texts == alone


def test_an_interrupted_batch_goes_on_too(lm):
    contexts = [lm.context(prompt) for prompt in ("KING", "Enter ROMEO and")]
    lm.change(length=40, seed=4)

    def samples(interrupt):
        rows = [[], []]
        for chunk in lm.stream_tokens(contexts, [1, 2]):
            rows = [row + ids for row, ids in zip(rows, chunk, strict=True)]
            interrupt()
        return rows

    alone = samples(lambda: None)
    other = lm.stream_tokens(contexts[:1], [7])  # one in a batch of two
    assert samples(lambda: next(other, None)) == alone
    lm.change(length=8, seed=1)


def test_threads_that_share_a_model_get_the_texts_of_each_alone(lm):
    prompts = ["KING", "ROMEO:", "Enter"]

    def work(prompt):
        text = "".join(lm.stream(prompt, seed=3, length=24))
        scores = [token.logprob for token in lm.score(prompt)]
        return text, lm.generate(prompt, 2, seed=3, length=24), scores

    alone = [work(prompt) for prompt in prompts]
    with ThreadPoolExecutor(len(prompts)) as threads:
        assert list(threads.map(work, prompts * 2)) == alone * 2


def test_a_stream_that_is_left_open_keeps_no_other_thread_waiting(lm):
    stream = lm.stream("KING", seed=3)
    next(stream)
    with ThreadPoolExecutor(1) as thread:
        assert thread.submit(lm.generate, "KING", seed=5).result() == lm.generate("KING", seed=5)


def test_closing_waits_for_another_thread_and_streams_then_end_with_an_error(tiny):
    lm = gpt2.load(tiny.folder, length=30)
    stream = lm.stream("KING")
    next(stream)
    lm.close()
    with pytest.raises(gpt2.UserError, match="the model is closed"):
        list(stream)


CALLS = {
    "load": lambda lm, **options: gpt2.load("1M", **options),
    "change": lambda lm, **options: lm.change(**options),
    "generate": lambda lm, **options: lm.generate("a", **options),
    "stream": lambda lm, **options: lm.stream("a", **options),
    "score": lambda lm, **options: lm.score("a", **options),
}
WRONG_TYPES = {
    "load": {"seed": "5", "length": "9", "batch_size": 2.5, "device": None, "dtype": None},
    "change": {"seed": "1", "length": None},
    "generate": {"nsamples": "2", "seed": 1.5, "top_k": 2.5, "temperature": "hot", "stop": ""},
    "stream": {"seed": True, "top_p": True, "stop_at_end": "no", "stop": [5]},
    "score": {"top": "3", "window": 2.5, "stride": "1"},
}


@pytest.mark.parametrize("call", CALLS)
def test_arguments_of_another_type_and_unknown_ones_are_user_errors(lm, call):
    for name, value in WRONG_TYPES[call].items():
        with pytest.raises(gpt2.UserError, match=f"^{name} must be "):
            CALLS[call](lm, **{name: value})
    for name in ("temprature", "check", "__class__"):
        with pytest.raises(gpt2.UserError, match=f"unknown option '{name}'; known are "):
            CALLS[call](lm, **{name: 1})


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda lm: lm.generate(""), "the prompt is empty"),
        (lambda lm: lm.generate(5), "a prompt must be a string or a list of strings, got int"),
        (lambda lm: lm.generate(["a", None, b"x"]), "a prompt must be text, got b'x'"),
        (lambda lm: lm.generate("a", 0), "nsamples must be at least 1, got 0"),
        (lambda lm: lm.generate("a", top_k=-1), "top_k must be from 0 to n_vocab"),
        (lambda lm: lm.generate("a" * 1000), "the prompt is too long"),
        (lambda lm: lm.stream(""), "the prompt is empty"),  # at once, not at the first token
        (lambda lm: lm.score(""), "the text is empty"),
        (lambda lm: lm.score(b"x"), "text must be text, got b'x'"),
        (lambda lm: lm.score("x", window=0), "window must be from 1"),
        (lambda lm: lm.logits([[1, 2], [3]]), r"of shape \[batch, sequence\]"),
        (lambda lm: lm.logits([[0.5]]), r"of shape \[batch, sequence\]"),
        (lambda lm: lm.logits([[1280]]), "from 0 to 1279"),
        (lambda lm: lm.logits([[0] * 257]), "257 tokens are too many: n_ctx is 256"),
        (lambda lm: gpt2.load("1M", model_name="1M"), "unknown option 'model_name'"),
        (lambda lm: gpt2.load("1M", models_dir=None), "models_dir must be the path of a folder"),
        (lambda lm: gpt2.load(b"1M"), "a model must be a name or a path, got b'1M'"),
        (lambda lm: gpt2.load("./missing"), "no model in models/missing; download"),
        (lambda lm: gpt2.load("some/gpt2-tiny"), "download it with: .* some/gpt2-tiny"),
        (lambda lm: gpt2.LanguageModel(sed=1), "unknown option 'sed'; known are model_name"),
        (lambda lm: copy.copy(lm), "a model cannot be pickled or copied"),
        (lambda lm: pickle.dumps(lm), "a model cannot be pickled or copied"),
    ],
)
def test_what_is_wrong_is_a_user_error(lm, call, message):
    with pytest.raises(gpt2.UserError, match=message):
        call(lm)


def test_numbers_of_numpy_are_welcome_where_they_are_exact(lm):
    expected = lm.generate("KING", 2, seed=5, length=6, top_k=40, temperature=0.5)
    options = {"length": np.int32(6), "top_k": 40.0, "temperature": np.float32(0.5)}
    assert lm.generate("KING", np.int64(2), seed=np.uint64(5), **options) == expected


def test_samples_end_before_a_stop_string_as_in_the_scripts(lm):
    whole = lm.generate("KING", 3, seed=5)
    stops = [text[2:5] for text in whole]
    ends = [min(text.find(stop) for stop in stops if stop in text) for text in whole]
    expected = [text[:end] for text, end in zip(whole, ends, strict=True)]
    assert lm.generate("KING", 3, seed=5, stop=stops) == expected
    assert "".join(lm.stream("KING", seed=5, stop=stops[0])) == whole[0][:2]


@pytest.mark.parametrize("model", ["1M", "1M/", "./1M", Path("1M"), "someone/1M", "{}/1M"])
@pytest.mark.parametrize("in_models_dir", [True, False])
def test_a_model_is_found_by_its_name_or_a_path(
    tmp_path, monkeypatch, copied, model, in_models_dir
):
    monkeypatch.chdir(tmp_path)
    model = type(model)(str(model).format(copied.parent))
    if in_models_dir:
        assert gpt2.load(model, models_dir=copied.parent).folder.resolve() == copied
    else:  # there, the repository has it
        assert gpt2.load(model).folder.resolve() in (copied, ROOT / "models" / "1M")


def test_a_model_that_is_partly_downloaded_is_reported_and_not_used(copied, tmp_path):
    shutil.copytree(copied, tmp_path / "117M", ignore=lambda *_: ["vocab.bpe"])
    chosen, notice = choose_model(None, str(tmp_path))
    assert chosen.path.resolve() == ROOT / "models" / "1M"
    assert "using the small model 1M" in notice and "download_model.py 117M` again" in notice


def test_weights_that_are_deleted_before_their_first_use_are_named(tiny, tmp_path):
    lm = gpt2.load(shutil.copytree(tiny.folder, tmp_path / "tiny"))
    (tmp_path / "tiny" / "model.ckpt.index").unlink()
    with pytest.raises(gpt2.UserError, match=r"model\.ckpt\.index is missing; download it with"):
        lm.generate("KING")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize("use", [lambda lm: lm, lambda lm: gpt2.load("1M")])
def test_a_model_used_before_a_fork_is_an_error_in_the_child_and_so_is_a_new_one(lm, use):
    lm.generate("KING")
    receiver, sender = os.pipe()
    if not (child := os.fork()):
        signal.alarm(60)  # or the child would hang for ever
        try:
            use(lm).generate("KING")
        except gpt2.UserError as error:
            os.write(sender, str(error).encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.close(sender)
    assert b"this process was forked from one that had used a model" in os.read(receiver, 9999)
    os.close(receiver)


def test_the_import_of_the_package_is_light():
    code = "import sys; sys.path.append('src'); import gpt2; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert not {"numpy", "tensorflow"} & {*done.stdout.split()}


def test_tensorflow_is_silent_and_dropped_models_are_garbage_once_another_is_loaded(tiny):
    # In a process of its own, as what was there before the import of TensorFlow is special.
    code = (
        "import gc, sys, weakref; sys.path.append('src'); import gpt2\n"
        "dropped = []\n"
        "for _ in range(2):\n"
        "    lm = gpt2.load(sys.argv[1]); lm.generate('a', length=2)\n"
        "    dropped.append(weakref.ref(lm.session._session)); del lm\n"
        "gc.collect(); print([model() for model in dropped])"
    )
    command = [sys.executable, "-c", code, str(tiny.folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert (done.stdout, done.stderr) == ("[None, None]\n", "")
