"""Texts become token ids once, whatever way they are named; what is no text is named."""

import json

import numpy as np
import pytest
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st

import encode as encode_script
from encoder import get_encoder
from gpt2.command_line import run
from gpt2.model_folder import ModelFolder
from gpt2.training import dataset
from user_error import UserError

MODEL = ROOT / "models" / "1M"
END = 1279  # <|endoftext|> in this vocabulary


def encode(text, **flags):
    return get_encoder("1M", str(MODEL.parent)).encode(text, **flags)


def load(path, cache):
    return dataset.load_tokens(str(path), ModelFolder(MODEL), cache)


@pytest.fixture
def texts(tmp_path):
    """Two texts and an empty one in a folder, and one a folder further down."""
    folder = tmp_path / "texts"
    (folder / "more").mkdir(parents=True)
    (folder / "a.txt").write_text("Speak, speak.", encoding="utf-8")
    (folder / "b.txt").write_text("", encoding="utf-8")
    (folder / "c.txt").write_text("Resolved rather to die\n", encoding="utf-8")
    (folder / ".hidden").write_bytes(b"\xff")
    (folder / "more" / "d.md").write_text("No more talking", encoding="utf-8")
    return folder


def test_texts_of_a_folder_have_one_end_of_text_between_them(texts, tmp_path):
    parts = ["Speak, speak.", "Resolved rather to die\n", "No more talking"]
    expected = [i for part in parts for i in [END, *encode(part)]][1:]
    tokens = load(texts, tmp_path)
    assert tokens.tolist() == expected
    assert tokens.dtype == np.uint16


def test_a_pattern_names_some_of_them(texts, tmp_path, monkeypatch):
    expected = [*encode("Speak, speak."), END, *encode("Resolved rather to die\n")]
    assert load(texts / "*.txt", tmp_path).tolist() == expected
    monkeypatch.chdir(texts.parent)
    assert load("texts/[ac].txt", tmp_path).tolist() == expected


def test_end_of_text_inside_a_file_is_a_single_id(tmp_path):
    path = tmp_path / "text"
    path.write_text("Speak.<|endoftext|>Speak.", encoding="utf-8")
    assert load(path, tmp_path).tolist() == [*encode("Speak."), END, *encode("Speak.")]


def test_each_text_of_json_lines_is_a_document(tmp_path):
    records = [{"text": "Speak, speak.", "n": 1}, {"text": ""}, {"text": "No <|endoftext|>more\n"}]
    path = tmp_path / "texts.jsonl"
    path.write_text("\n\n".join(map(json.dumps, records)), encoding="utf-8")
    expected = [*encode("Speak, speak."), END, *encode("No "), END, *encode("more\n")]
    assert load(path, tmp_path).tolist() == expected
    path.write_text('{"text": "a"}\n{"txt": "b"}\n', encoding="utf-8")
    with pytest.raises(
        UserError, match=r"texts\.jsonl, line 2: expected a JSON object with a text"
    ):
        load(path, tmp_path)


def test_a_long_text_has_the_ids_of_the_whole(tmp_path):
    text = "My lord, 中文 <|endoftext|>it is\r\n" * 6000  # several chunks of text_chunks
    path = tmp_path / "text"
    path.write_bytes(text.encode())
    assert load(path, tmp_path).tolist() == encode(text, allow_special=True)


def test_a_text_is_encoded_once_and_again_when_it_changed(texts, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    path = texts / "a.txt"
    first = load(path, cache)
    calls = []
    real = dataset.encode_files
    monkeypatch.setattr(dataset, "encode_files", lambda *a: calls.append(a) or real(*a))
    assert load(path, cache).tolist() == first.tolist()
    assert not calls
    path.write_text("Speak, speak. Speak.", encoding="utf-8")
    assert load(path, cache).tolist() == encode("Speak, speak. Speak.")
    assert len(calls) == 1
    assert {file.suffix for file in cache.iterdir()} == {".npz"}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("text", None, "no such file, and no files that match"),
        ("text", b"", "is empty"),
        ("text", b"\xff" * 100, "is not UTF-8 text: invalid start byte"),
        ("text", b"text\0" * 100, "is not a text file: it contains NUL bytes"),
        ("text.csv", b"id,text\n", r"is a table, not text; put its texts in a \.jsonl file"),
    ],
)
def test_a_dataset_that_is_no_text_is_named(tmp_path, name, content, message):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        load(path, tmp_path / "cache")
    assert str(path) in str(caught.value)
    assert not (tmp_path / "cache").exists()


def test_arrays_of_other_programs_are_taken_one_after_the_other(tmp_path):
    arrays = [np.array([[1, 2]]), np.array(5), np.array([[END]], np.uint64), np.array([7], ">i4")]
    np.savez_compressed(tmp_path / "a.npz", *arrays)
    assert load(tmp_path / "a.npz", tmp_path).tolist() == [1, 2, 5, END, 7]


@pytest.mark.parametrize(
    ("array", "message"),
    [
        ([0.5], "holds float64"),
        ([1280], "not from 0 to"),
        ([-1], "not from 0 to"),
        ([{}], r"is not an \.npz of token ids"),  # it would be unpickled, which can run any code
    ],
)
def test_arrays_that_are_no_ids_are_refused(tmp_path, array, message):
    np.savez(tmp_path / "a.npz", np.array(array))
    with pytest.raises(UserError, match=message):
        load(tmp_path / "a.npz", tmp_path)


def test_an_npz_of_another_vocabulary_a_torn_one_and_a_single_array_are_refused(tmp_path):
    path = tmp_path / "a.npz"
    dataset.write_tokens(path, np.arange(3000, dtype=np.uint16), ModelFolder(MODEL))
    with pytest.raises(UserError, match="vocabulary of another model"):
        dataset.read_tokens(path, "other", 1280)
    np.save(tmp_path / "array.npy", np.arange(3))
    for content in (path.read_bytes()[:1000], (tmp_path / "array.npy").read_bytes()):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"is not an \.npz of token ids"):
            load(path, tmp_path)


def test_the_script_makes_what_training_takes(texts, tmp_path, run_here):
    output = tmp_path / "out.npz"
    script = ROOT / "src" / "encode.py"
    flags = [texts, output, "--model_name", "1M"]
    done = run_here(lambda: run(encode_script.encode), script, *flags)
    assert (done.returncode, done.stderr) == (0, "")
    assert load(output, tmp_path).tolist() == load(texts, tmp_path).tolist()


def test_both_parts_of_a_text_must_hold_a_window():
    training, testing = dataset.hold_out(np.arange(100), 0.1, 9)
    assert (training.tolist(), testing.tolist()) == ([*range(90)], [*range(90, 100)])
    with pytest.raises(UserError, match=r"10 of its 100 tokens are held out.*--held_out 0 "):
        dataset.hold_out(np.arange(100), 0.1, 10)
    with pytest.raises(UserError, match="too short: 10 of its 100 tokens are to train on"):
        dataset.hold_out(np.arange(100), 0.9, 10)
    with pytest.raises(UserError, match=r"a smaller --window$"):
        dataset.hold_out(np.arange(100), 0.1, 100)
    assert len(dataset.hold_out(np.arange(100), 0, 99)[1]) == 0


def test_random_windows_are_neighbouring_tokens_and_depend_on_the_seed_alone():
    tokens = np.arange(100, dtype=np.uint16) * 3
    windows = dataset.random_windows(tokens, 7, 500, seed=[1, 2])
    assert windows.shape == (500, 8)
    assert (np.diff(windows) == 3).all()
    assert {*windows[:, 0]} == {*tokens[:93]}
    np.testing.assert_array_equal(windows, dataset.random_windows(tokens, 7, 500, seed=[1, 2]))
    assert not np.array_equal(windows, dataset.random_windows(tokens, 7, 500, seed=[1, 3]))


@given(st.integers(0, 60), st.integers(1, 9), st.integers(1, 9))
def test_neighbouring_windows_predict_no_token_twice(n, window, most):
    windows = dataset.neighbouring_windows(np.arange(n), window, most)
    assert windows.shape == (min(most, max(n - 1, 0) // window), window + 1)
    predicted = windows[:, 1:].ravel().tolist()
    assert len({*predicted}) == len(predicted)
    assert {*predicted} <= {*range(1, n)}


def test_other_programs_can_train_on_all_arrays_of_our_file(tmp_path):
    path = tmp_path / "a.npz"
    tokens = np.arange(1000, dtype=np.uint16)
    dataset.write_tokens(path, tokens, ModelFolder(MODEL))
    chunks = []
    with np.load(path) as npz:  # as the forks' load_dataset does
        for item in npz.files:
            chunks.append(npz[item])
    assert np.concatenate(chunks).tolist() == tokens.tolist()
    assert dataset.is_ours(path)
    np.savez(path, tokens)
    assert not dataset.is_ours(path)


def test_a_folder_with_brackets_is_no_pattern(tmp_path):
    for folder in ("data [v2]", "data v"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a[1].txt").write_text(folder, encoding="utf-8")
    expected = [tmp_path / "data [v2]" / "a[1].txt"]
    for name in ("data [v2]", "data [v2]/a[1].txt", "data [v2]/*.txt", "data [v2]/**"):
        assert dataset.find_files(str(tmp_path / name)) == expected
    assert dataset.find_files(str(tmp_path / "data [a-z]/*")) == [tmp_path / "data v" / "a[1].txt"]


@pytest.mark.parametrize(
    "name", ["", "/", "a**", "***/x", "~nobody-here/x", "a\0b", "x" * 5000, "\ud800", "/dev/zero"]
)
def test_a_dataset_that_names_nothing_is_refused(name):
    with pytest.raises(UserError, match=r"^the dataset ") as caught:
        dataset.find_files(name)
    assert "\n" not in str(caught.value)
    assert "--dataset" not in str(caught.value)


def test_token_ids_among_texts_are_named(texts, tmp_path):
    dataset.write_tokens(texts / "a.npz", np.arange(9, dtype=np.uint16), ModelFolder(MODEL))
    with pytest.raises(UserError, match=r"a\.npz holds token ids, not text; keep it apart"):
        load(texts, tmp_path)


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("a.txt", r"OUTPUT must end in \.npz, got"),
        ("nothing/a.npz", "no folder .*nothing to write a.npz in"),
        ("theirs.npz", r"theirs\.npz exists and was not made by encode\.py"),
        ("folder.npz", r"folder\.npz exists"),
    ],
)
def test_the_script_checks_its_output_before_it_encodes(texts, tmp_path, output, message):
    np.savez(tmp_path / "theirs.npz", np.arange(3))
    before = (tmp_path / "theirs.npz").read_bytes()
    (tmp_path / "folder.npz").mkdir()
    with pytest.raises(UserError, match=message):
        encode_script.encode(str(texts), str(tmp_path / output), model_name="1M")
    assert (tmp_path / "theirs.npz").read_bytes() == before


def test_the_script_replaces_its_own_output(texts, tmp_path):
    for text in ("once", "once, twice"):
        (texts / "a.txt").write_text(text, encoding="utf-8")
        encode_script.encode(str(texts / "a.txt"), str(tmp_path / "a.npz"), model_name="1M")
    assert load(tmp_path / "a.npz", tmp_path).tolist() == encode("once, twice")
