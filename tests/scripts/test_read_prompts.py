"""How the texts of a prompt file are read, whatever wrote the file."""

import io
import sys

import pytest

from generate_conditional_samples import read_prompts
from hparams import UserError
from interactive_conditional_samples import Session


@pytest.mark.parametrize(
    ("name", "content", "separator", "prompts"),
    [
        ("a.txt", b"ROMEO:\r\nJULIET:\r\n", "\\n", ["ROMEO:", "JULIET:"]),
        ("a.txt", b"A\r\nb\r\n\r\nC\r\n", "\\n\\n", ["A\nb", "C"]),
        ("a.txt", b"A\r\n", "###", ["A"]),
        ("a.jsonl", b'{"text": "A\\r\\nb"}\r\n\r\n', "\\n", ["A\r\nb"]),
    ],
)
def test_crlf_ends_a_line(tmp_path, name, content, separator, prompts):
    (tmp_path / name).write_bytes(content)
    assert read_prompts(str(tmp_path / name), separator) == prompts


def test_crlf_ends_a_line_of_standard_input(monkeypatch):
    stdin = io.TextIOWrapper(io.BytesIO(b"ROMEO:\r\nJULIET:\r\n"), newline="\n")
    monkeypatch.setattr(sys, "stdin", stdin)
    assert read_prompts("-", "\\n") == ["ROMEO:", "JULIET:"]


def test_crlf_ends_a_line_of_a_pipe(monkeypatch):
    stdin = io.TextIOWrapper(io.BytesIO(b"ROMEO:\r\n\r\nJULIET:\r\n"), newline="\n")
    monkeypatch.setattr(sys, "stdin", stdin)
    answered = []
    session = Session(sampler=None, nsamples=1, stop_at_end=True)
    monkeypatch.setattr(session, "respond", answered.append)
    session.answer_lines()
    assert answered == ["ROMEO:", "JULIET:"]


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl"])
def test_a_byte_order_mark_is_dropped(tmp_path, name):
    line = b'{"text": "A"}' if name == "a.jsonl" else b"A"
    (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + line)
    assert read_prompts(str(tmp_path / name), "\\n") == ["A"]


def test_a_byte_order_mark_of_a_pipe_is_dropped(monkeypatch):
    stdin = io.TextIOWrapper(io.BytesIO(b"\xef\xbb\xbfROMEO:\n"), encoding="utf-8")
    monkeypatch.setattr(sys, "stdin", stdin)
    answered = []
    session = Session(sampler=None, nsamples=1, stop_at_end=True)
    monkeypatch.setattr(session, "respond", answered.append)
    session.answer_lines()
    assert answered == ["ROMEO:"]


def test_json_that_is_nested_too_deeply_is_refused(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("[" * 100_000, encoding="utf-8")
    with pytest.raises(UserError, match=r"a\.jsonl, line 1: expected a JSON object with a text"):
        read_prompts(str(path), "\\n")
