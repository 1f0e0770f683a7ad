"""Texts are encoded once and cut into windows; an error names the file that is not text."""

import json

import numpy as np
import pytest
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st

from encoder import get_encoder
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
    """A folder with two texts, an empty and a hidden file, and a subfolder with a third text."""
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


def test_a_pattern_names_some_of_them_and_brackets_of_a_folder_are_no_pattern(texts, monkeypatch):
    monkeypatch.chdir(texts.parent)
    (texts / ".git").mkdir()
    (texts / ".git" / "e.txt").touch()
    files = {name: texts / name for name in ("a.txt", "b.txt", "c.txt", "more/d.md")}
    for pattern, expected in [
        ("texts", [*files]),
        ("texts/**", [*files]),
        ("texts/*.txt", ["a.txt", "b.txt", "c.txt"]),
        ("texts/[ac].txt", ["a.txt", "c.txt"]),
    ]:
        found = dataset.find_files(pattern)
        assert [path.resolve() for path in found] == [files[name] for name in expected]
    odd = texts.rename("texts [v2]") / "a.txt"
    odd.rename(odd.with_name("a[1].txt"))
    assert dataset.find_files("texts [v2]")[0].name == "a[1].txt"
    assert len(dataset.find_files("texts [v2]/a[1].txt")) == 1


def test_each_text_of_json_lines_is_a_document(tmp_path):
    records = [{"text": "Speak, speak.", "n": 1}, {"text": ""}, {"text": "No <|endoftext|>more\n"}]
    path = tmp_path / "texts.jsonl"
    path.write_text("\n\n".join(map(json.dumps, records)), encoding="utf-8")
    expected = [*encode("Speak, speak."), END, *encode("No "), END, *encode("more\n")]
    assert load(path, tmp_path).tolist() == expected


def test_a_long_text_has_the_ids_of_the_whole(tmp_path):
    text = "My lord, 中文 <|endoftext|>it is\r\n" * 6000  # several chunks of text_chunks
    path = tmp_path / "text"
    path.write_bytes(text.encode())
    assert load(path, tmp_path).tolist() == encode(text, allow_special=True)


def test_a_text_is_encoded_once_and_again_when_it_changed(texts, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    path = texts / "a.txt"
    first = load(path, cache)
    assert len([*cache.iterdir()]) == 1
    with monkeypatch.context() as patch:
        patch.delattr(dataset, "encode_files")
        assert load(path, cache).tolist() == first.tolist()
    path.write_text("Speak, speak. Speak.", encoding="utf-8")
    assert load(path, cache).tolist() == encode("Speak, speak. Speak.")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("text", b"", "is empty"),
        ("text", b"\xff" * 100, "is not UTF-8 text: invalid start byte"),
        ("text", b"text\0" * 100, "is not a text file: it contains NUL bytes"),
        ("text.jsonl", b'{"text": "a"}\n{"txt": "b"}\n', ", line 2: expected a JSON object"),
    ],
)
def test_a_dataset_that_is_no_text_is_named(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"{name}.*{message}"):
        load(path, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_arrays_of_token_ids_are_taken_one_after_the_other(tmp_path):
    arrays = [np.array([[1, 2]]), np.array(5), np.array([[END]], np.uint64), np.array([7], ">i4")]
    np.savez_compressed(tmp_path / "a.npz", *arrays)
    assert load(tmp_path / "a.npz", tmp_path).tolist() == [1, 2, 5, END, 7]


@pytest.mark.parametrize(
    ("array", "message"),
    [
        ([0.5], "has numbers that are not ids from 0 to 1279"),
        ([1280], "has numbers that are not ids"),
        ([-1], "has numbers that are not ids"),
        ([{}], r"is not an \.npz of token ids"),  # it would be unpickled, which can run any code
    ],
)
def test_arrays_that_are_no_ids_are_refused(tmp_path, array, message):
    np.savez(tmp_path / "a.npz", np.array(array))
    with pytest.raises(UserError, match=message):
        load(tmp_path / "a.npz", tmp_path)


def test_both_parts_of_a_text_must_hold_a_window():
    training, testing = dataset.hold_out(np.arange(100), 0.1, 9)
    assert (training.tolist(), testing.tolist()) == ([*range(90)], [*range(90, 100)])
    for share in (0.1, 0.9):
        with pytest.raises(UserError, match=r"too short: .* a window needs 11; .*--held_out 0 "):
            dataset.hold_out(np.arange(100), share, 10)
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


@pytest.mark.parametrize("name", ["", "/", "none", "~nobody/x", "a\0b", "x" * 5000])
def test_a_dataset_that_names_nothing_is_refused(name):
    with pytest.raises(UserError, match=r"^the dataset ") as caught:
        dataset.find_files(name)
    assert "\n" not in str(caught.value)
