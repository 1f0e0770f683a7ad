"""The file `checkpoint` is read as TensorFlow reads it, and a name in it is never trusted."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt2.checkpoint_file import newest_weights
from user_error import UserError


def newest(folder, text):
    (folder / "checkpoint").write_bytes(text if isinstance(text, bytes) else text.encode())
    return newest_weights(folder).name


@pytest.mark.parametrize(
    "text",
    [
        'model_checkpoint_path: "model-6"',
        'model_checkpoint_path: "model-6" \t\r\nall_model_checkpoint_paths: "model-3"\r\n',
        "model_checkpoint_path: 'model-6'",
        'model_checkpoint_path:"model-6"',
        'model_checkpoint_path  :\n "model-6";',
        'all_model_checkpoint_paths: "model-3", model_checkpoint_path: "model-6"',
        '# model_checkpoint_path: "model-3"\nmodel_checkpoint_path: "model-6"  # "model-9"',
        'model_checkpoint_path: "model-3" model_checkpoint_path: "model-6"',
        'model_checkpoint_path: "mod" \'el\' "-6"',
        r'model_checkpoint_path: "C:\\Users\\me\\run\\model-6"',
        r'model_checkpoint_path: "C:\Users\me\run\model-6"',
        'model_checkpoint_path: "/home/me/a:b # c/model-6"',
        r'model_checkpoint_path: "\155\x6fdel\x2d6"',
        'all_model_checkpoint_timestamps: 1.5e9\nmodel_checkpoint_path: "model-6"\n'
        "last_preserved_timestamp: -1",
        'all_model_checkpoint_paths: ["a", "b"]\nmodel_checkpoint_path: "model-6"',
    ],
)
def test_forms_that_tensorflow_takes(tmp_path, text):
    assert newest(tmp_path, text) == "model-6"


def test_tensorflow_writes_other_characters_as_bytes(tmp_path):
    assert newest(tmp_path, r'model_checkpoint_path: "caf\303\251 \"1\""') == 'café "1"'


def test_a_windows_path_typed_by_hand_is_found_by_its_file(tmp_path):
    (tmp_path / "train-6.index").touch()
    assert newest(tmp_path, r'model_checkpoint_path: "C:\runs\train-6"') == "train-6"


@pytest.mark.parametrize(
    "text", ["", "<html>", 'model_checkpoint_path "a"', 'model_checkpoint_path: "a', "\0" * 9,
             b'model_checkpoint_path: "\xff', 'xmodel_checkpoint_path: "a"'],
)  # fmt: skip
def test_a_file_that_names_nothing_is_named(tmp_path, text):
    with pytest.raises(UserError, match="checkpoint names no model_checkpoint_path"):
        newest(tmp_path, text)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("", "''"),
        ("run/", "''"),
        (r"a\000b", r"'a\\x00b'"),
        (r"\033[31mred", r"'\\x1b\[31mred'"),
        (r"\377", r"'\\udcff'"),
        ("\u202egnp.exe", r"'\\u202egnp.exe'"),
        ("m" * 5000, "'m{40}' and so on"),
    ],
)
def test_a_name_that_no_file_has_is_shown_in_printing_characters(tmp_path, name, shown):
    with pytest.raises(UserError, match=f"model_checkpoint_path is {shown}, which cannot be"):
        newest(tmp_path, f'model_checkpoint_path: "{name}"')


FIELD = st.text("mod\"'\\/:#ax07\n ", max_size=30).map('model_checkpoint_path: "{}'.format)


@given(st.text() | FIELD)
def test_any_text_names_a_file_of_the_folder_or_is_refused(tmp_path_factory, text):
    folder = tmp_path_factory.getbasetemp()
    try:
        name = newest(folder, text.encode("utf-8", errors="surrogatepass"))
    except UserError as error:
        assert str(error).isprintable()
    else:
        assert name.isprintable() and "/" not in name
