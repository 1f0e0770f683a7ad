"""What a terminal shows: nothing in a text can control it."""

import io

import pytest

from gpt2.terminal import VisibleText


@pytest.mark.parametrize(
    ("kept", "shown"),
    [
        ("", "�[2J tab\t é � � � � �b end\r\nnext"),
        ("\r", "�[2J tab\t é � � � � \rb end\r\nnext"),
    ],
)
def test_a_terminal_shows_control_characters_as_replacements(kept, shown):
    stream = io.StringIO(newline="")
    terminal = VisibleText(stream, kept)
    text = "\x1b[2J tab\t é \0 \x7f \x80 \x9f \rb end\r\nnext"
    print(text, end="", file=terminal)
    assert stream.getvalue() == shown
    terminal.writelines(["\a", "\n"])
    assert stream.getvalue() == shown + "�\n"
    assert not terminal.isatty()
