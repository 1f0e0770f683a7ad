"""Long texts: the pieces have the ids of the whole, and are made one at a time."""

import os

import pytest
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st

from encoder import PATTERN, get_encoder
from gpt2.text_stream import Counts, lines, safe_pieces, text_chunks
from user_error import UserError

ENCODER = get_encoder("1M", str(ROOT / "models"))
# Letters, digits, marks, and every kind of space that the encoder or Python knows.
AWKWARD = st.text("ab1é中!'ts \n\r\t\x0b\x1c\x1f\x85\xa0\u2003\u200b\u3000́😀", max_size=30)


@given(st.lists(AWKWARD, max_size=6))
def test_pieces_have_the_ids_of_the_whole_text(chunks):
    text, pieces = "".join(chunks), list(safe_pieces(chunks))
    assert "".join(pieces) == text
    assert [i for piece in pieces for i in ENCODER.encode(piece)] == ENCODER.encode(text)
    # Whatever tokens a vocabulary has.
    assert [word for piece in pieces for word in PATTERN.findall(piece)] == PATTERN.findall(text)


@given(st.lists(AWKWARD, max_size=6))
def test_counts_of_pieces_add_up(chunks):
    text = "".join(chunks)
    counts = Counts()
    for piece in safe_pieces(chunks):
        counts.add(piece)
    expected = [len(text.split()), text.count("\n"), len(text), len(text.encode())]
    assert [counts.words, counts.lines, counts.characters, counts.bytes] == expected


@given(st.lists(st.text("ab\r\n", max_size=5)))
def test_lines_end_at_line_feeds_and_crlf_only(chunks):
    text = "".join(chunks).replace("\r\n", "\n")
    expected = text.split("\n")
    found = list(lines(chunks))
    assert "".join(found) == text
    assert [line.rstrip("\n") for line in found] == (expected if expected[-1] else expected[:-1])


def test_a_text_is_cut_often_and_read_piece_by_piece():
    chunks = iter(["so it ", "goes\non", "and on"])
    assert next(safe_pieces(chunks)) == "so it"
    assert next(chunks) == "goes\non"


def test_reading_leaves_characters_whole_and_line_ends_alone(tmp_path):
    text = "é\r\n中\r" * 50_000
    path = tmp_path / "text"
    path.write_bytes(text.encode())
    sizes = []
    assert "".join(text_chunks(str(path), on_read=sizes.append)) == text
    assert sum(sizes) == path.stat().st_size
    assert len(sizes) > 1


def test_a_line_in_a_pipe_is_read_before_the_next_one_comes():
    receiver, sender = os.pipe()
    os.write(sender, b"ROMEO:\n")
    assert next(text_chunks(f"/dev/fd/{receiver}")) == "ROMEO:\n"
    os.close(receiver)
    os.close(sender)


def test_characters_that_a_cut_went_through_are_left_out(tmp_path):
    path = tmp_path / "text"
    path.write_bytes("a中文中".encode()[:-1])
    assert "".join(text_chunks(str(path), start=2, cut=True)) == "文"
    assert "".join(text_chunks(str(path), cut=True)) == "a中文"


def test_a_byte_order_mark_is_dropped_at_the_beginning_only(tmp_path):
    path = tmp_path / "text"
    path.write_bytes("\ufeffa\ufeff".encode())
    assert "".join(text_chunks(str(path))) == "a\ufeff"
    assert "".join(text_chunks(str(path), start=4)) == "\ufeff"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file"),
        (b"ab\xff", "is not UTF-8 text: invalid start byte"),
        ("中".encode()[:2], "is not UTF-8 text: unexpected end of data"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path, content, message):
    path = tmp_path / "text"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        list(text_chunks(str(path)))
    assert str(path) in str(caught.value)
