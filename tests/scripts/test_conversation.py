"""The prompt of the interactive script in a real terminal."""

import os
import sys

import pexpect
import pytest
from conftest import ROOT

pytestmark = pytest.mark.end_to_end
PROMPT = "Model prompt >>> "


@pytest.fixture
def terminal(tmp_path):
    """Start the script in a pseudo-terminal, with a model that answers at once."""
    children = []
    environment = os.environ | {
        "PYTHONPATH": str(ROOT / "src"),
        "HOME": str(tmp_path),
        "TERM": "dumb",
    }

    def start(*flags):
        script = ROOT / "tests" / "helpers" / "fake_model.py"
        command = [script, "interactive_conditional_samples", "--model_name", "1M"]
        child = pexpect.spawn(
            sys.executable,
            [*map(str, command), *map(str, flags)],
            env=environment,
            encoding="utf-8",
            timeout=100,
        )
        children.append(child)
        child.expect_exact(PROMPT)
        return child

    yield start
    for child in children:
        child.close(force=True)


def say(child, line):
    """What the script answers to a line."""
    child.sendline(line)
    child.expect_exact(PROMPT)
    return child.before


def ends(child):
    """Whether the script has come to its end without an error."""
    child.expect(pexpect.EOF)
    child.close()
    return child.exitstatus == 0 and "Traceback" not in child.before


def test_the_greeting_fits_a_terminal(terminal):
    greeting = terminal().before.splitlines()
    assert len(greeting) > 3
    assert max(map(len, greeting)) <= 78


def test_the_same_prompt_gets_new_samples_and_a_seed_repeats_the_session(terminal):
    for _ in range(2):
        child = terminal("--seed", 3)
        assert "[3.1]" in say(child, "ROMEO:")
        assert "[3.2]" in say(child, "ROMEO:")
    say(child, "/seed 4")
    assert "[4.1]" in say(child, "ROMEO:")


def test_ctrl_c_clears_a_line(terminal):
    child = terminal()
    for _ in range(3):
        child.send("half a line")
        child.expect_exact("half a line")
        child.sendintr()
        child.expect_exact(PROMPT)
    assert "[7.1]" in say(child, "ROMEO:")


def test_ctrl_c_clears_a_text_of_several_lines(terminal):
    child = terminal()
    for line in ('"""', "KING RICHARD"):
        child.sendline(line)
        child.expect_exact("... ")
    child.sendintr()
    child.expect_exact(PROMPT)
    assert "[7.1]" in say(child, "ROMEO:")


def test_ctrl_c_ends_the_samples_and_another_one_clears_the_line(terminal):
    child = terminal("--nsamples", 1000)
    child.sendline("endless")
    child.expect_exact(" more")
    child.sendintr()
    child.expect_exact(PROMPT)
    child.sendintr()
    child.expect_exact("Ctrl-C again, or Ctrl-D, leaves.")
    child.expect_exact(PROMPT)
    say(child, "/nsamples 1")
    assert "[7.2]" in say(child, "ROMEO:")  # the sample that was stopped is not made again
    child.sendintr()
    child.expect_exact(PROMPT)
    assert "[7.3]" in say(child, "ROMEO:")


def test_ctrl_c_twice_on_an_empty_line_leaves(terminal):
    child = terminal()
    child.sendintr()
    child.expect_exact(PROMPT)
    child.sendintr()
    assert ends(child)


@pytest.mark.parametrize("lines", [[], ['"""', "KING RICHARD"]])
def test_ctrl_d_leaves(terminal, lines):
    child = terminal()
    for line in lines:
        child.sendline(line)
        child.expect_exact("... ")
    child.sendeof()
    assert ends(child)


def test_an_empty_or_too_long_prompt_is_refused(terminal):
    child = terminal("--length", 200)
    assert "Prompt should not be empty!" in say(child, "")
    assert "the prompt is too long: its " in say(child, "word " * 70)
    assert "[7.1]" in say(child, "ROMEO:")


def test_a_text_of_several_lines_is_taken_as_it_is(terminal):
    child = terminal("--length", 5)
    for line in ('"""', "/temperature 0.5", "quit"):
        child.sendline(line)
        child.expect_exact("... ")
    assert "[7.1]" in say(child, '"""')
    assert "temperature 1" in say(child, "?")


def test_settings_are_shown_changed_and_confirmed(terminal):
    child = terminal("--length", 40, "--seed", 4)
    assert "length 40" in say(child, "?")
    assert "temperature is now 0.7" in say(child, "/temperature 0.7")
    assert "temperature 0.7" in say(child, "/?")
    assert "temperature is now 0, top_k is now 40" in say(child, "/temperature 0 top_k=40")
    say(child, "/nsamples=2")
    assert {"[4.1]", "[4.2]"} <= set(say(child, "ROMEO:").split())
    assert "top_p must be from 0 to 1, got 7" in say(child, "/top_p 7")
    assert "there is no setting 'temprature', only length, temp" in say(child, "/temprature 0.5")
    assert "SAMPLE" not in child.before
    assert "nsamples must be at least 1, got 0" in say(child, "/nsamples 0 length 3")
    shown = [line for line in say(child, "?").splitlines() if " " in line]
    assert shown == ["length 40", "temperature 0", "top_k 40", "top_p 1", "nsamples 2", "seed 4"]


def test_a_line_without_a_slash_is_a_text_and_a_lone_setting_gets_a_hint(terminal):
    child = terminal()
    assert "[7.1] temperature 0.7" in say(child, "temperature 0.7")
    assert child.before.rstrip().endswith("To change the setting, type /temperature 0.7")
    assert "[7.2] quit the stage" in say(child, "quit the stage")
    assert "To change" not in child.before
    assert "temperature 1" in say(child, "?")


@pytest.mark.parametrize("word", ["quit", "/exit"])
def test_a_word_leaves_and_another_helps(terminal, word):
    child = terminal()
    for command in ("help", "/help"):
        shown = say(child, command)
        assert "/quit or Ctrl-D leaves." in shown and "temperature 1" in shown
    child.sendline(word)
    assert ends(child)


def test_what_was_typed_is_there_in_the_next_session(terminal, tmp_path):
    pytest.importorskip("readline")
    child = terminal()
    say(child, "Once upon a time")
    child.sendeof()
    assert ends(child)
    child = terminal()
    child.send("\x1b[A")  # arrow up
    child.expect_exact("Once upon a time")
    assert list(tmp_path.iterdir()) == [tmp_path / ".gpt2_history"]
