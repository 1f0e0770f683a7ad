"""The prompt of the interactive script: what is typed, and Ctrl-C and Ctrl-D in a terminal."""

import builtins
import os
import sys

import pexpect
import pytest
from conftest import ROOT
from fake_model import FakeModel

from gpt2.sampling.batch import StopConditions
from interactive_conditional_samples import Conversation

PROMPT = "Model prompt >>> "


@pytest.fixture
def talk(monkeypatch, capsys):
    """A function that types lines, and returns the greeting and the answer to each prompt."""

    def talk(*lines, **options):
        rest = iter(lines)

        def type_line(prompt):
            print(prompt)
            if (line := next(rest, None)) is None:
                raise EOFError
            return line

        monkeypatch.setattr(builtins, "input", type_line)
        lm = FakeModel(model_name="1M", batch_size=1, **options)
        Conversation(lm, 1, StopConditions()).converse()
        return capsys.readouterr().out.split(PROMPT)

    return talk


def test_the_greeting_fits_a_terminal(talk):
    greeting = talk()[0].splitlines()
    assert len(greeting) > 3
    assert max(map(len, greeting)) <= 78


def test_the_same_prompt_gets_new_samples_and_a_seed_repeats_the_session(talk):
    lines = ["ROMEO:", "ROMEO:", "/seed 4", "ROMEO:"]
    _, one, two, _, other, _ = first = talk(*lines, seed=3)
    assert "[3.1]" in one and "[3.2]" in two and "[4.1]" in other
    assert talk(*lines, seed=3) == first


def test_an_empty_or_too_long_prompt_is_refused(talk):
    _, empty, long, fine, _ = talk("", "word " * 70, "ROMEO:", length=200)
    assert "Prompt should not be empty!" in empty
    assert "the prompt is too long: its " in long
    assert "[7.1]" in fine


def test_a_text_of_several_lines_is_taken_as_it_is(talk):
    _, sample, shown, _ = talk('"""', "/temperature 0.5", "quit", '"""', "?", length=5)
    assert "[7.1] /temperature 0.5\nquit\n" in sample and "temperature 1" in shown


def test_settings_are_shown_changed_and_confirmed(talk):
    lines = ["?", "/temperature 0 top_k=40", "/nsamples=2", "ROMEO:", "/top_p 7"]
    lines += ["/temprature 0.5", "/nsamples 0 length 3", "/?"]
    _, shown, two, nsamples, samples, range_, name, nothing, last, _ = talk(
        *lines, length=40, seed=4
    )
    assert "length 40" in shown
    assert "temperature is now 0, top_k is now 40" in two
    assert "nsamples is now 2" in nsamples
    assert {"[4.1]", "[4.2]"} <= set(samples.split())
    assert "top_p must be from 0 to 1, got 7" in range_
    assert "there is no setting 'temprature', only length, temp" in name and "SAMPLE" not in name
    assert "nsamples must be at least 1, got 0" in nothing
    expected = ["length 40", "temperature 0", "top_k 40", "top_p 1", "nsamples 2", "seed 4"]
    assert last.split("\n")[1:-1] == expected


def test_a_line_without_a_slash_is_a_text_and_a_lone_setting_gets_a_hint(talk):
    _, hinted, text, shown, _ = talk("temperature 0.7", "quit the stage", "?")
    assert "[7.1] temperature 0.7" in hinted
    assert hinted.rstrip().endswith("To change the setting, type /temperature 0.7")
    assert "[7.2] quit the stage" in text and "To change" not in text
    assert "temperature 1" in shown


@pytest.mark.parametrize("word", ["quit", "exit", "/quit", "/exit"])
def test_a_word_leaves_and_another_helps(talk, word):
    _, *helps, _ = talk("help", "/help", word, "ROMEO:")
    assert len(helps) == 2
    for shown in helps:
        assert "/quit or Ctrl-D leaves." in shown and "temperature 1" in shown


@pytest.fixture
def terminal(tmp_path):
    """Start the script in a pseudo-terminal, with a model that answers at once."""
    children = []
    source, helper = str(ROOT / "src"), str(ROOT / "tests" / "helpers" / "fake_model.py")
    environment = os.environ | {"PYTHONPATH": source, "HOME": str(tmp_path), "TERM": "dumb"}

    def start(*flags):
        command = [helper, "interactive_conditional_samples", "--model_name", "1M", *flags]
        child = pexpect.spawn(
            sys.executable, command, env=environment, encoding="utf-8", timeout=100
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


@pytest.mark.end_to_end
def test_ctrl_c_clears_a_line_or_several_and_twice_on_an_empty_one_leaves(terminal):
    child = terminal()
    for _ in range(2):
        child.send("half a line")
        child.expect_exact("half a line")
        child.sendintr()
        child.expect_exact(PROMPT)
    for line in ('"""', "KING RICHARD"):
        child.sendline(line)
        child.expect_exact("... ")
    child.sendintr()
    child.expect_exact(PROMPT)
    assert "[7.1]" in say(child, "ROMEO:")
    child.sendintr()
    child.expect_exact(PROMPT)
    child.sendintr()
    assert ends(child)


@pytest.mark.end_to_end
def test_ctrl_c_ends_the_samples_and_another_one_clears_the_line(terminal):
    child = terminal("--nsamples", "1000")
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


@pytest.mark.end_to_end
def test_ctrl_d_leaves_and_what_was_typed_is_there_in_the_next_session(terminal, tmp_path):
    pytest.importorskip("readline")
    child = terminal()
    say(child, "Once upon a time")
    child.sendeof()
    assert ends(child)
    child = terminal()
    child.send("\x1b[A")  # arrow up
    child.expect_exact("Once upon a time")
    child.sendline("")
    child.expect_exact(PROMPT)
    child.sendline('"""')
    child.expect_exact("... ")
    child.sendeof()
    assert ends(child)
    assert list(tmp_path.iterdir()) == [tmp_path / ".gpt2_history"]
