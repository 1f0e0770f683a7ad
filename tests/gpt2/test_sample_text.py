"""Stop strings: nothing of them is shown, wherever the pieces are cut."""

import pytest
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st

from encoder import get_encoder
from gpt2.sample_text import SampleText, read_stop_strings
from user_error import UserError

ENCODER = get_encoder("1M", str(ROOT / "models"))
SHORT = st.text("ab", max_size=8)


def passed(stop_strings, pieces):
    sample = SampleText(ENCODER, stop_strings)
    shown = [sample.add(ENCODER.encode(piece)) for piece in pieces]
    return "".join([*shown, sample.add([], final=True)]), sample.stopped


def by_definition(stop_strings, text):
    """The text before the stop string that is complete first, the longest of several."""
    for end in range(1, len(text) + 1):
        found = [stop for stop in stop_strings if text[:end].endswith(stop)]
        if found:
            return text[: end - max(map(len, found))], True
    return text, False


@given(st.lists(st.text("ab", min_size=1, max_size=4), max_size=3), st.lists(SHORT, max_size=5))
def test_a_text_ends_before_the_first_stop_string_however_it_is_cut(stop_strings, pieces):
    assert passed(stop_strings, pieces) == by_definition(stop_strings, "".join(pieces))


def test_text_is_passed_on_as_soon_as_it_can_be():
    sample = SampleText(ENCODER, ["END", "\n\n"])
    pieces = ["one EN", "two\n", "x", "\n", "\nmore"]
    shown = [sample.add(ENCODER.encode(piece)) for piece in pieces]
    assert shown == ["one ", "ENtwo", "\nx", "", ""]
    assert sample.stopped


@pytest.mark.parametrize("step", [1, 2, 100])
@pytest.mark.parametrize(
    ("text", "stop", "left"),
    [
        ("To be, or not to be", "not", "To be, or "),
        ("To be, or not to be", "e, o", "To b"),
        ("To be, or not to be", "To", ""),
        ("one“two”three", "”", "one“two"),
        ("one“two”three", "four", "one“two”three"),
    ],
)
def test_a_sample_ends_before_a_stop_string_across_tokens(step, text, stop, left):
    ids = ENCODER.encode(text)
    sample = SampleText(ENCODER, [stop])
    shown = [sample.add(ids[i : i + step]) for i in range(0, len(ids), step)]
    shown.append(sample.add([], final=True))
    assert "".join(shown) == sample.text == left
    assert sample.stopped == (left != text)
    # No more tokens than the text needs.
    assert sample.tokens == ids[: len(sample.tokens)]
    assert ENCODER.decode(sample.tokens).startswith(left)
    assert not left or not ENCODER.decode(sample.tokens[:-1]).startswith(left)


def test_stop_strings_are_written_with_escapes_and_not_empty():
    assert read_stop_strings(["END", r"\n\n", r"\t"]) == ("END", "\n\n", "\t")
    with pytest.raises(
        UserError, match="stop must be a text or a list of texts, none of them empty"
    ):
        read_stop_strings(["END", ""])
