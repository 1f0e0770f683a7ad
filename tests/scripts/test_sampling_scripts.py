"""The scripts as a user runs them, with the model that comes with the repository.

A process that imports TensorFlow takes seconds. So most tests call the script in their own process,
or run it with fake_model.py.
"""

import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys

import pexpect
import pytest
from conftest import ROOT
from fake_model import FakeModel

from gpt2.model_folder import choose_model

pytestmark = pytest.mark.end_to_end

EMBEDDED = ["--model_name", "1M", "--device", "cpu"]  # and no word of what was chosen
UNCONDITIONAL = ROOT / "src" / "generate_unconditional_samples.py"
INTERACTIVE = ROOT / "src" / "interactive_conditional_samples.py"
CONDITIONAL = ROOT / "src" / "generate_conditional_samples.py"
SCRIPTS = [UNCONDITIONAL, INTERACTIVE]
FAKE = [sys.executable, str(ROOT / "tests" / "helpers" / "fake_model.py")]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT / "src")}


def call(script, *flags, **kwargs):
    command = [sys.executable, str(script), *map(str, flags)]
    return subprocess.run(
        command, capture_output=True, text=True, encoding="utf-8", timeout=600, **kwargs
    )


def banners(text):
    """Numbers of the samples, in the order of their banners."""
    rule = "=" * 40
    lines = [line for line in text.splitlines() if line.startswith(f"{rule} SAMPLE ")]
    assert all(line.endswith(f" {rule}") for line in lines)
    return [int(line.split()[2]) for line in lines]


def test_samples_are_made_anywhere_with_the_embedded_model_if_there_is_no_other(tmp_path):
    flags = ["--nsamples", 2, "--length", 60, "--seed", 1]
    done = call(UNCONDITIONAL, *flags, "--models_dir", "none", cwd=tmp_path)
    assert done.returncode == 0
    header, first, *rest = done.stdout.splitlines()
    assert header.startswith("# Synthetic text, written by a language model: model 1M, ")
    assert first == "=" * 40 + " SAMPLE 1 " + "=" * 40
    assert len("".join(rest)) > 200
    assert banners(done.stdout) == [1, 2]
    choice, processor, summary = done.stderr.splitlines()
    assert choice.startswith("using the small model 1M: no model in none/117M; download it with: ")
    assert re.search(r"download_model\.py'? 117M$", choice)
    assert processor.startswith("running on the ")
    assert re.fullmatch(r"2 samples, 120 tokens in .* s: .* tokens/s; seed 1", summary)


@pytest.mark.parametrize(("nsamples", "batch_size"), [(1, 3), (5, 2), (3, 3)])
def test_samples_are_counted_right_for_every_batch_size(call_here, nsamples, batch_size):
    flags = [*EMBEDDED, "--nsamples", nsamples, "--batch_size", batch_size]
    done = call_here(UNCONDITIONAL, *flags, model=FakeModel)
    assert banners(done.stdout) == list(range(1, nsamples + 1))
    assert f"{nsamples} samples, " in done.stderr


def test_117m_is_the_default_where_it_is_there(tmp_path):
    shutil.copytree(ROOT / "models" / "1M", tmp_path / "117M")
    model, notice = choose_model(None, str(tmp_path))
    assert (model.path, notice) == (tmp_path / "117M", "")


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--model_name", "200M"], "no model in models/200M; download it with: "),
        (["--length", 257], "length must be from 1 to n_ctx = 256, got 257"),
        (["--temperature", -1], "temperature must be 0 or above, got -1.0"),
        (["--top_k", 1281], "top_k must be from 0 to n_vocab = 1280, got 1281"),
        (["--top_p", 1.1], "top_p must be from 0 to 1, got 1.1"),
        (["--batch_size", 0], "batch_size must be at least 1, got 0"),
        (["--nsamples", -1], "nsamples must be "),
        (["--topk", 40], "unknown argument --topk; did you mean --top_k?"),
    ],
)
def test_wrong_flags_are_one_line_at_once(call_here, script, flags, message):
    flags = flags if "--model_name" in flags else ["--model_name", "1M", *flags]
    assert_refused(call_here(script, *flags), message)


def assert_refused(done, message):
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert (done.stdout, done.returncode) == ("", 2)


def test_mistakes_are_reported_before_tensorflow_is_imported(tmp_path):
    (tmp_path / "tensorflow.py").write_text("raise SystemExit('imported')", encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = call(UNCONDITIONAL, "--length", 9999, "--model_name", "1M", env=environment)
    assert_refused(done, "length must be")


def test_a_script_written_for_the_original_runs_unchanged():
    script = ROOT / "tests" / "helpers" / "original_user.py"
    environment = ENVIRONMENT | {"TF_CPP_MIN_LOG_LEVEL": "2"}
    done = call(script, ROOT / "models", "1M", env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("=" * 40) == 2 * (1 + 16)


def test_a_reader_that_goes_away_ends_the_script_without_an_error():
    command = [*FAKE, UNCONDITIONAL.stem, "--model_name", "1M"]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, env=ENVIRONMENT, **streams) as process:
        process.stdout.readline()
        process.stdout.close()
        assert b"Traceback" not in process.stderr.read()
        assert process.wait(timeout=600) == 0


def test_a_pipe_is_answered_line_by_line_without_prompt_text(call_here):
    flags = [*EMBEDDED, "--seed", 2, "--nsamples", 3, "--batch_size", 2]
    done = call_here(INTERACTIVE, *flags, input="KING RICHARD\n\nMy lord, ", model=FakeModel)
    assert (done.returncode, done.stderr) == (0, "seed 2\n")
    assert banners(done.stdout) == [1, 2, 3, 4, 5, 6]
    assert re.findall(r"\[2.\d] .*", done.stdout) == [
        *(f"[2.{number}] KING RICHARD" for number in (1, 2, 3)),
        *(f"[2.{number}] My lord, " for number in (4, 5, 6)),
    ]
    assert "Model prompt" not in done.stdout
    assert done.stdout.count("\n" + "=" * 80 + "\n") == 2


def test_a_line_that_is_too_long_does_not_stop_the_others(call_here):
    lines = "word " * 300 + "\nMy lord, \n"
    done = call_here(INTERACTIVE, *EMBEDDED, input=lines, model=FakeModel)
    assert banners(done.stdout) == [1]
    assert "line 1: the prompt is too long" in done.stderr
    assert done.returncode == 2


def test_prompt_flag_file_and_standard_input_give_the_same(call_here, tmp_path):
    text = 'Two lines,\nand an "è“'
    (tmp_path / "prompt").write_text(text, encoding="utf-8")
    outputs = [
        call_here(INTERACTIVE, *EMBEDDED, *flags, input=text, model=FakeModel)
        for flags in (
            ["--prompt", text],
            ["--prompt_file", tmp_path / "prompt"],
            ["--prompt_file", "-"],
        )
    ]
    assert {(done.returncode, done.stderr) for done in outputs} == {(0, "seed 7\n")}
    assert len({done.stdout for done in outputs}) == 1
    assert banners(outputs[0].stdout) == [1]
    assert f"[7.1] {text}\n" in outputs[0].stdout


CONTROL = "è“ 中, red \x1b[31m, bell \a, \x9b, tab\t, a\rb, end\r\nnext"


def test_pipes_are_utf_8_whatever_the_locale_is_and_nothing_in_them_is_changed():
    command = [*FAKE, INTERACTIVE.stem, "--model_name", "1M", "--prompt_file", "-"]
    environment = ENVIRONMENT | {"PYTHONIOENCODING": "cp1252"}
    streams = {"input": CONTROL.encode(), "stdout": subprocess.PIPE}
    done = subprocess.run(command, env=environment, check=True, **streams)
    assert f"[7.1] {CONTROL}\n".encode() in done.stdout


def test_a_terminal_gets_no_control_characters(tmp_path):
    (tmp_path / "prompt").write_bytes(CONTROL.encode())
    path = str(tmp_path / "prompt")
    command = [*FAKE, INTERACTIVE.stem, "--model_name", "1M", "--prompt_file", path]
    environment = ENVIRONMENT | {"PYTHONUTF8": "1"}
    shown = pexpect.run(shlex.join(command), env=environment, encoding="utf-8")
    assert "[7.1] è“ 中, red \ufffd[31m, bell \ufffd, \ufffd, tab\t, a\ufffdb, end\r" in shown


def test_text_is_shown_as_it_is_made(call_here, monkeypatch):
    stdout, seen = io.BytesIO(), []

    class Watched(FakeModel):
        def stream_tokens(self, *arguments, **options):
            for piece in super().stream_tokens(*arguments, **options):
                seen.append(stdout.getvalue().decode())
                yield piece

    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(stdout, encoding="utf-8"))
    call_here(INTERACTIVE, *EMBEDDED, "--prompt", "ROMEO:", model=Watched)
    assert seen[1].endswith("=\n[7.1]")
    assert stdout.getvalue().decode().startswith(seen[1] + " ROMEO:\n")


def test_stop_strings_end_samples_and_are_not_printed_but_recorded(call_here):
    text, stop = "To be, or not to be\nKING RICHARD\n", ["--stop", "e, or n", "--stop", "RICH"]
    flags = [*EMBEDDED, "--seed", 5, *stop]
    answers = call_here(INTERACTIVE, *flags, input=text, model=FakeModel).stdout
    assert re.findall(r"^\[.*", answers, re.MULTILINE) == ["[5.1] To b", "[5.2] KING "]
    flags += ["--prompts", "-", "--format", "jsonl"]
    dumped = call_here(CONDITIONAL, *flags, input=text, model=FakeModel).stdout
    first, second = map(json.loads, dumped.splitlines())
    assert (first["text"], first["ended"], second["text"]) == ("[5.1] To b", True, "[5.2] KING ")
    assert first["settings"]["stop"] == ["e, or n", "RICH"]


def test_a_terminal_answers_prompts_until_ctrl_d():
    flags = [str(INTERACTIVE), "--model_name", "1M", "--length", "30", "--nsamples", "2"]
    child = pexpect.spawn(sys.executable, flags, encoding="utf-8", timeout=600)
    child.expect_exact("Model prompt >>> ")
    for prompt, numbers in [("KING RICHARD III:", [1, 2]), ("My lord, ", [3, 4])]:
        child.sendline(prompt)
        child.expect_exact("Model prompt >>> ")
        assert banners(child.before) == numbers
        assert len(child.before) > 300
        assert child.before.rstrip().endswith("=" * 80)
    child.sendline("/nsamples 100000")
    child.expect_exact("Model prompt >>> ")
    child.sendline("ROMEO:")
    child.expect_exact(" SAMPLE 6 ")
    child.sendintr()
    child.expect_exact("Model prompt >>> ")
    child.sendeof()
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0
    assert "Traceback" not in child.before


def test_a_broken_vocabulary_ends_a_session_with_one_line(tmp_path):
    folder = shutil.copytree(ROOT / "models" / "1M", tmp_path / "1M")
    (folder / "vocab.bpe").write_text("one line\nalone", encoding="utf-8")
    flags = [str(INTERACTIVE), "--model_name", "1M", "--models_dir", str(tmp_path)]
    child = pexpect.spawn(sys.executable, flags, encoding="utf-8", timeout=600)
    child.expect_exact("Model prompt >>> ")  # before the vocabulary is read
    child.expect(pexpect.EOF)
    child.close()
    empty, error, rest = child.before.split("\r\n")
    assert (empty, rest, child.exitstatus) == ("", "", 2)
    assert f"{folder / 'vocab.bpe'} is broken" in error
