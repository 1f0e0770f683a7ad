"""The scripts as a user runs them, with the model that comes with the repository."""

import os
import re
import shutil
import subprocess
import sys
import time

import pexpect
import pytest
from conftest import ROOT

pytestmark = pytest.mark.end_to_end

EMBEDDED = ["--model_name", "1M", "--device", "cpu"]  # and no word of what was chosen
UNCONDITIONAL = ROOT / "src" / "generate_unconditional_samples.py"
INTERACTIVE = ROOT / "src" / "interactive_conditional_samples.py"
CONDITIONAL = ROOT / "src" / "generate_conditional_samples.py"
SCRIPTS = [UNCONDITIONAL, INTERACTIVE]


def call(script, *flags, **kwargs):
    command = [sys.executable, str(script), *map(str, flags)]
    return subprocess.run(
        command, capture_output=True, text=True, encoding="utf-8", timeout=100, **kwargs
    )


def banners(text):
    """Numbers of the samples, in the order of their banners."""
    rule = "=" * 40
    lines = [line for line in text.splitlines() if line.startswith(f"{rule} SAMPLE ")]
    assert all(line.endswith(f" {rule}") for line in lines)
    return [int(line.split()[2]) for line in lines]


def test_unconditional_samples_are_text_under_banners():
    done = call(UNCONDITIONAL, "--nsamples", 2, "--length", 60, "--seed", 1, *EMBEDDED)
    assert done.returncode == 0
    assert re.fullmatch(r"2 samples, 120 tokens in .* s: .* tokens/s\n", done.stderr)
    first, *rest = done.stdout.splitlines()
    assert first == "=" * 40 + " SAMPLE 1 " + "=" * 40
    assert len("".join(rest)) > 200


def test_a_seed_repeats_the_samples():
    flags = ["--nsamples", 1, "--length", 40, "--model_name", "1M", "--seed"]
    first, again, other = (call(UNCONDITIONAL, *flags, seed).stdout for seed in (5, 5, 6))
    assert first == again
    assert first != other


@pytest.mark.parametrize(("nsamples", "batch_size"), [(1, 3), (5, 2), (3, 3)])
def test_samples_are_counted_right_for_every_batch_size(nsamples, batch_size):
    flags = ["--nsamples", nsamples, "--batch_size", batch_size, "--length", 3]
    assert banners(call(UNCONDITIONAL, *flags).stdout) == list(range(1, nsamples + 1))


def test_falls_back_to_the_embedded_model_and_says_so(tmp_path):
    done = call(UNCONDITIONAL, "--nsamples", 1, "--length", 3, "--models_dir", tmp_path)
    assert done.returncode == 0
    assert "using the small model 1M" in done.stderr
    assert "running on the CPU" in done.stderr
    assert "python3 download_model.py 117M" in done.stderr


def test_117m_is_the_default_where_it_is_there(tmp_path):
    shutil.copytree(ROOT / "models" / "1M", tmp_path / "117M")
    done = call(UNCONDITIONAL, "--nsamples", 1, "--length", 3, "--models_dir", tmp_path)
    assert done.returncode == 0
    assert "1M" not in done.stderr


def test_scripts_work_from_any_working_directory(tmp_path):
    done = call(UNCONDITIONAL, "--nsamples", 1, "--length", 3, "--model_name", "1M", cwd=tmp_path)
    assert (done.returncode, banners(done.stdout)) == (0, [1])


@pytest.mark.parametrize("script", [*SCRIPTS, CONDITIONAL])
def test_help_describes_every_flag(script):
    done = call(script, "--nsamples", 2, "--", "--help")
    assert done.returncode == 0
    assert "SAMPLE 1" not in done.stdout
    shown = " ".join((done.stdout + done.stderr).split())
    for words in (
        "model to use; 117M unless given",
        "repeats the samples of a run",
        "how many samples",
        "how many samples to make side by side",
        "tokens in a sample",
        "1 draws as the model predicts",
        "among the k likeliest tokens",
        "that together reach this probability",
        "folder that holds the models",
        "end a sample where the model ends the text",
        "auto is the first GPU",
    ):
        assert words in shown


def broken(tmp_path, name, content):
    """A copy of the embedded model with one file changed, or removed for content None."""
    folder = shutil.copytree(ROOT / "models" / "1M", tmp_path / "bad")
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(content)
    return ["--models_dir", tmp_path, "--model_name", "bad"]


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--model_name", "200M"], "no model in models/200M; download it with: python3 download"),
        (["--length", 257], "length must be from 1 to n_ctx = 256, got 257"),
        (["--length", 0], "length must be from 1 to n_ctx = 256, got 0"),
        (["--length", -3], "length must be from 1 to n_ctx = 256, got -3"),
        (["--temperature", -1], "temperature must be 0 or above, got -1.0"),
        (["--top_k", -1], "top_k must be from 0 to n_vocab = 1280, got -1"),
        (["--top_k", 1281], "top_k must be from 0 to n_vocab = 1280, got 1281"),
        (["--top_p", -0.1], "top_p must be from 0 to 1, got -0.1"),
        (["--top_p", 1.1], "top_p must be from 0 to 1, got 1.1"),
        (["--batch_size", 0], "batch_size must be at least 1, got 0"),
        (["--nsamples", -1], "nsamples must be "),
        (["--topk", 40], "unknown flag --topk; did you mean --top_k?"),
    ],
)
def test_wrong_flags_are_one_line_at_once(script, flags, message):
    flags = flags if "--model_name" in flags else ["--model_name", "1M", *flags]
    assert_refused(call(script, *flags, stdin=subprocess.DEVNULL), message)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("hparams.json", b"{", "hparams.json: Expecting property name"),
        ("hparams.json", None, "hparams.json: No such file or directory"),
        ("model.ckpt.data-00000-of-00001", None, "data-00000-of-00001 is missing"),
        ("model.ckpt.data-00000-of-00001", b"x" * 999, "is cut short: 999 bytes of 39"),
        ("encoder.json", None, "encoder.json"),
    ],
)
def test_broken_models_are_one_line_at_once(tmp_path, name, content, message):
    done = call(UNCONDITIONAL, *broken(tmp_path, name, content))
    assert_refused(done, message)
    assert "download_model.py" in done.stderr


def assert_refused(done, message):
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert (done.stdout, done.returncode) == ("", 2)


def test_mistakes_are_told_before_tensorflow_is_imported(tmp_path):
    (tmp_path / "tensorflow.py").write_text("raise SystemExit('imported')", encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = call(UNCONDITIONAL, "--length", 9999, "--model_name", "1M", env=environment)
    assert_refused(done, "length must be")


def test_a_mistake_is_one_line_without_a_model_name_too():
    assert_refused(call(UNCONDITIONAL, "--length", 9999), "length must be")


def test_a_script_written_for_the_original_runs_unchanged():
    script = ROOT / "tests" / "helpers" / "original_user.py"
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "TF_CPP_MIN_LOG_LEVEL": "2"}
    done = call(script, ROOT / "models", "1M", env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("=" * 40) == 4


def test_a_script_with_the_behaviour_of_2_x_turned_off_runs():
    script = ROOT / "tests" / "helpers" / "migrated_user.py"
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "TF_CPP_MIN_LOG_LEVEL": "2"}
    done = call(script, env=environment)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr


@pytest.mark.parametrize(
    ("script", "flags"),
    [
        (UNCONDITIONAL, []),
        (INTERACTIVE, ["--prompt", "ROMEO:", "--nsamples", "1000000"]),
        (CONDITIONAL, ["--prompts", ROOT / "gpt-2-samples" / "prompts.txt", "--nsamples", "0"]),
    ],
)
def test_a_reader_that_goes_away_ends_the_script_without_an_error(script, flags):
    command = [sys.executable, script, "--length", "3", "--model_name", "1M", *flags]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.readline()
        process.stdout.close()
        assert b"Traceback" not in process.stderr.read()
        assert process.wait(timeout=60) == 0


def test_a_pipe_is_answered_line_by_line_without_prompt_text():
    flags = [*EMBEDDED, "--length", 12, "--seed", 2, "--nsamples", 3, "--batch_size", 2]
    done = call(INTERACTIVE, *flags, input="KING RICHARD\n\nMy lord, ")
    assert (done.returncode, done.stderr) == (0, "")
    assert banners(done.stdout) == [1, 2, 3, 1, 2, 3]
    assert "Model prompt" not in done.stdout
    assert done.stdout.count("\n" + "=" * 80 + "\n") == 2


def test_a_line_that_is_too_long_does_not_stop_the_others():
    done = call(INTERACTIVE, *EMBEDDED, "--length", 12, input="word " * 300 + "\nMy lord, \n")
    assert banners(done.stdout) == [1]
    assert "line 1: the prompt is too long" in done.stderr
    assert done.returncode == 2


def test_prompt_flag_file_and_standard_input_give_the_same(tmp_path):
    text = 'Two lines,\nand an "è“'
    (tmp_path / "prompt").write_text(text, encoding="utf-8")
    flags = [*EMBEDDED, "--length", 12, "--seed", 2]
    outputs = [
        call(INTERACTIVE, *flags, "--prompt", text),
        call(INTERACTIVE, *flags, "--prompt_file", tmp_path / "prompt"),
        call(INTERACTIVE, *flags, "--prompt_file", "-", input=text),
    ]
    assert {(done.returncode, done.stderr) for done in outputs} == {(0, "")}
    assert len({done.stdout for done in outputs}) == 1
    assert banners(outputs[0].stdout) == [1]


def test_output_that_is_not_utf_8_gets_replacements_and_does_not_fail():
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    flags = [*EMBEDDED, "--length", 4, "--temperature", 0]
    done = call(INTERACTIVE, *flags, "--prompt", "è“", env=environment)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.fixture
def terminal():
    """Start the interactive script in a pseudo-terminal."""
    children = []

    def start(*flags):
        command = [str(INTERACTIVE), "--model_name", "1M", *map(str, flags)]
        child = pexpect.spawn(sys.executable, command, encoding="utf-8", timeout=60, echo=False)
        children.append(child)
        child.expect_exact("Model prompt >>> ")
        return child

    yield start
    for child in children:
        child.close(force=True)


def test_terminal_answers_two_prompts_and_leaves_on_ctrl_d(terminal):
    child = terminal("--length", 30, "--nsamples", 2)
    for prompt in ("KING RICHARD III:", "My lord, "):
        child.sendline(prompt)
        child.expect_exact("Model prompt >>> ")
        assert banners(child.before) == [1, 2]
        assert len(child.before) > 300
        assert child.before.rstrip().endswith("=" * 80)
    child.sendeof()
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0
    assert "Traceback" not in child.before


def test_terminal_leaves_on_ctrl_c_at_the_prompt(terminal):
    child = terminal()
    child.sendintr()
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0
    assert "Traceback" not in child.before


def test_terminal_asks_again_after_an_empty_or_too_long_prompt(terminal):
    child = terminal("--length", 200)
    child.sendline("")
    child.expect_exact("Prompt should not be empty!")
    child.expect_exact("Model prompt >>> ")
    child.sendline("word " * 70)
    child.expect("the prompt is too long: its .* tokens leave room for")
    child.expect_exact("Model prompt >>> ")
    child.sendline("ROMEO:")
    child.expect_exact("Model prompt >>> ")
    assert banners(child.before) == [1]


def test_terminal_shows_and_changes_settings_without_loading_again(terminal):
    child = terminal("--length", 40, "--seed", 4)

    def say(line):
        child.sendline(line)
        child.expect_exact("Model prompt >>> ")
        return child.before

    assert "length 40" in say("?")
    first = say("ROMEO:")
    assert say("ROMEO:") == first
    say("seed 5")
    assert say("ROMEO:") != first
    say("temperature 0")
    assert "temperature 0.0" in say("?")
    assert say("ROMEO:") == say("ROMEO:")
    say("length 1")
    assert len(say("ROMEO:")) < len(first)
    say("nsamples=2")
    assert banners(say("ROMEO:")) == [1, 2]
    assert "top_p must be from 0 to 1, got 7.0" in say("top_p 7")
    assert "top_k must be a number, got 'x'" in say("top_k x")


def test_terminal_takes_a_text_of_several_lines(terminal):
    child = terminal("--length", 5)
    for line in ('"""', "ROMEO:", "?", '"""'):
        child.sendline(line)
    child.expect_exact("=" * 80)
    assert child.before.count(" SAMPLE 1 ") == 1
    assert "temperature" not in child.before


def test_terminal_shows_text_before_the_sample_is_complete(terminal):
    child = terminal("--length", 250, "--nsamples", 1)
    child.sendline("ROMEO:")
    child.expect_exact(" SAMPLE 1 ")
    times = []
    while child.expect_exact(["Model prompt >>> ", *"aeiou"]):
        times.append(time.monotonic())
    # A sample that is printed at once comes within a moment of its last token.
    assert times[-1] - times[0] > 0.02
    assert len(set(times)) > 20


def test_terminal_ctrl_c_ends_the_samples_and_not_the_session(terminal):
    child = terminal("--length", 100, "--nsamples", 100000)
    child.sendline("ROMEO:")
    child.expect_exact(" SAMPLE 2 ")
    child.sendintr()
    child.expect_exact("Model prompt >>> ")
    child.sendeof()
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0
