"""The prompt of the interactive script: what is typed, and Ctrl-C and Ctrl-D in a terminal."""

import builtins
import os
import sys

import pexpect
import pytest
from conftest import ROOT
from fake_model import FakeModel

from gpt2.sampling.batch import StopConditions
from interactive_conditional_samples import Conversation, read_settings
from user_error import UserError

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
    lines = ["?", "/temperature 0 top_k 40", "/nsamples=2", "ROMEO:", "/top_p 7"]
    lines += ["/nsamples 0 length 3", "/?"]
    _, shown, two, nsamples, samples, range_, nothing, last, _ = talk(*lines, length=40, seed=4)
    assert "length 40" in shown
    assert "temperature is now 0, top_k is now 40" in two
    assert "nsamples is now 2" in nsamples
    assert {"[4.1]", "[4.2]"} <= set(samples.split())
    assert "top_p must be from 0 to 1, got 7" in range_
    assert "nsamples must be at least 1, got 0" in nothing
    expected = ["length 40", "temperature 0", "top_k 40", "top_p 1", "nsamples 2", "seed 4"]
    assert last.split("\n")[1:-1] == expected


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("/temprature 0.7", "there is no setting 'temprature', only length, temperature, top_k, "),
        ("/usr/bin/python is", "there is no setting 'usr/bin/python', only length, "),
        ("/", "there is no setting '', only length, "),
        ("/seed 5 apples", "there is no setting 'apples', only length, "),
        ("/temperature", "temperature needs a value; ? shows the settings"),
        ("/top_k x", "top_k must be a whole number, got 'x'"),
    ],
)
def test_a_slash_before_anything_else_is_explained(line, message):
    with pytest.raises(UserError) as caught:
        read_settings(line)
    assert str(caught.value).startswith(message)


def test_a_line_without_a_slash_is_a_text(talk):
    _, one, two, shown, _ = talk("temperature 0.7", "quit the stage", "?")
    assert "[7.1] temperature 0.7" in one and "[7.2] quit the stage" in two
    assert "temperature 1" in shown


@pytest.mark.parametrize("word", ["quit", "exit", "/quit", "/exit"])
def test_a_word_leaves_and_another_helps(talk, word):
    _, *helps, _ = talk("help", "/help", word, "ROMEO:")
    assert len(helps) == 2
    for shown in helps:
        assert "/quit or Ctrl-D leaves." in shown and "temperature 1" in shown


@pytest.mark.end_to_end
def test_ctrl_c_clears_what_is_typed_or_stops_samples_and_ctrl_d_leaves():
    helper, script = ROOT / "tests" / "helpers" / "fake_model.py", "interactive_conditional_samples"
    command = [str(helper), script, "--model_name", "1M", "--nsamples", "1000"]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "TERM": "dumb"}
    child = pexpect.spawn(sys.executable, command, env=environment, encoding="utf-8", timeout=100)
    child.expect_exact(PROMPT)
    for line, typed, shown in [
        ("", "half a line", "half a line"),
        ('"""', "KING RICHARD\n", "... "),
        ("endless", "", " more"),
    ]:
        if line:
            child.sendline(line)
        child.send(typed)
        child.expect_exact(shown)
        child.sendintr()
        if child.expect_exact([PROMPT, pexpect.TIMEOUT], timeout=10):
            child.sendintr()  # readline can miss one that comes right after its prompt
            child.expect_exact(PROMPT)
    child.sendline("/nsamples 1")
    child.expect_exact(PROMPT)
    child.sendline("ROMEO:")
    child.expect_exact("[7.2]")  # the sample that was stopped is not made again
    child.expect_exact(PROMPT)
    child.sendeof()
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0 and "Traceback" not in child.before
