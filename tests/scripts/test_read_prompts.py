"""How the texts of a prompt file are read, whatever wrote the file."""

import io
import sys

import pytest

from gpt2.sampling.batch import StopConditions
from gpt2.sampling.prompts import read_prompts
from interactive_conditional_samples import Conversation
from user_error import UserError


def texts_of(path, separator="\\n"):
    return [text for _, text in read_prompts(path, separator)]


def answered_lines(monkeypatch):
    """What a conversation is asked to continue from standard input."""
    answered = []
    conversation = Conversation(lm=None, nsamples=1, ends=StopConditions())
    monkeypatch.setattr(conversation, "respond", answered.append)
    conversation.answer_lines()
    return answered


def put_in(monkeypatch, content):
    """Let standard input hold these bytes."""
    stdin = io.TextIOWrapper(io.BytesIO(content), encoding="utf-8", newline="\n")
    monkeypatch.setattr(sys, "stdin", stdin)


@pytest.mark.parametrize(
    ("name", "content", "separator", "prompts"),
    [
        ("a.txt", b"ROMEO:\r\nJULIET:\r\n", "\\n", ["ROMEO:", "JULIET:"]),
        ("a.txt", b"A\r\nb\r\n\r\nC\r\n", "\\n\\n", ["A\nb", "C"]),
        ("a.txt", b"\xef\xbb\xbfA\r\n", "###", ["A"]),
        ("a.jsonl", b'\xef\xbb\xbf{"text": "A\\r\\nb"}\r\n\r\n', "\\n", ["A\r\nb"]),
        ("a.jsonl", b'{"text": "\\uD83D\\ude00\xf0\x9f\x98\x80"}', "\\n", ["😀😀"]),
    ],
)
def test_crlf_byte_order_marks_and_surrogate_pairs_are_understood(
    tmp_path, name, content, separator, prompts
):
    (tmp_path / name).write_bytes(content)
    assert texts_of(str(tmp_path / name), separator) == prompts


def test_standard_input_is_read_as_a_file_is(monkeypatch):
    content = b"\xef\xbb\xbfROMEO:\r\n\r\nJULIET:\r\n"
    put_in(monkeypatch, content)
    assert texts_of("-") == ["ROMEO:", "JULIET:"]
    put_in(monkeypatch, content)
    assert answered_lines(monkeypatch) == ["ROMEO:", "JULIET:"]
    put_in(monkeypatch, b"ROMEO:\n\xff\n")
    with pytest.raises(UserError, match=r"^- is not UTF-8 text"):
        answered_lines(monkeypatch)


@pytest.mark.parametrize(
    ("name", "content", "separator", "lines"),
    [
        ("a.txt", "A\n\nB\nC\n", "\\n", [1, 3, 4]),
        ("a.txt", "A\nb\n\nC\n\n\nD", "\\n\\n", [1, 4, 6]),
        ("a.txt", "A###B\nb###C", "###", [1, 1, 2]),
        ("a.jsonl", '{"text": "A\\n"}\n\n{"text": ""}\n{"text": "B"}', "", [1, 4]),
    ],
)
def test_prompts_know_their_lines(tmp_path, name, content, separator, lines):
    (tmp_path / name).write_text(content, encoding="utf-8")
    path = str(tmp_path / name)
    places = [place for place, _ in read_prompts(path, separator)]
    assert places == [f"{path}, line {line}" for line in lines]
