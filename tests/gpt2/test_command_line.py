"""Flags, one-line errors, and the standard streams of scripts."""

import inspect
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

import convert
import download_model
import evaluate
import generate_conditional_samples
import generate_unconditional_samples
import interactive_conditional_samples
import train
from gpt2.command_line import FLAGS

MAINS = [
    *(evaluate.score, evaluate.perplexity, evaluate.task, evaluate.paper),
    *convert.COMMANDS.values(),
    generate_conditional_samples.continue_model,
    generate_unconditional_samples.sample_model,
    interactive_conditional_samples.interact_model,
    train.train,
    download_model.download_models,
]
ENVIRONMENT = os.environ | {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}
SCRIPT = """
from gpt2.command_line import run
from user_error import UserError

def main(length: int | None = None, temperature: float = 1, my_name: str = "x",
         loud: bool = False, seed: int = 0, stop: tuple[str, ...] = ()):
    '''Say something.

    Args:
      length: how long it is, in %.
    '''
    if my_name == "wrong":
        raise UserError("name must not be wrong")
    print(repr((length, temperature, my_name, loud, *stop)))

run(main)
"""


@pytest.fixture
def script(tmp_path):
    """The path of a small script of one function."""
    path = tmp_path / "speak.py"
    path.write_text(SCRIPT, encoding="utf-8")
    return path


@pytest.fixture
def call(script, run_here):
    """Run the script with some arguments in this process, which takes less time."""
    return lambda *arguments: run_here(lambda: runpy.run_path(str(script)), script, *arguments)


@pytest.fixture
def call_process(script):
    """Run the script in a process of its own."""
    return lambda *arguments: subprocess.run(
        [sys.executable, script, *arguments], capture_output=True, text=True, env=ENVIRONMENT
    )


@pytest.mark.parametrize(
    ("arguments", "printed"),
    [
        ([], "(None, 1, 'x', False)"),
        (["--length", "5", "--length=None", "--temperature", "2"], "(None, 2.0, 'x', False)"),
        (["--my_name", "007"], "(None, 1, '007', False)"),
        (["--my-name=[1, 2]", "--loud"], "(None, 1, '[1, 2]', True)"),
        (["--my-name", "two words", "--noloud"], "(None, 1, 'two words', False)"),
        (["--loud", "--loud=False", "--my_name", "-"], "(None, 1, '-', False)"),
        (["--my_name=--Hello-you", "--loud=True"], "(None, 1, '--Hello-you', True)"),
        (["--my_name="], "(None, 1, '', False)"),
        (["--length", "1e5"], "(100000, 1, 'x', False)"),
        (["--temperature", "-1"], "(None, -1.0, 'x', False)"),
        (["--stop", "a", "--stop=b"], "(None, 1, 'x', False, 'a', 'b')"),
    ],
)
def test_flags_have_the_types_of_their_annotations(call, arguments, printed):
    done = call(*arguments)
    assert (done.stdout.strip(), done.stderr, done.returncode) == (printed, "", 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--lenght", "5"], "unknown argument --lenght; did you mean --length?"),
        (["--len", "5"], "unknown argument --len; did you mean --length?"),
        (["--loud", "False"], "unknown argument False; --help describes the flags"),
        (["--length", "five"], "--length must be a whole number, got 'five'"),
        (["--length"], "argument --length: expected one argument"),
        (["--seed", str(2**63)], "--seed must be from -2**63 to 2**63 - 1, got 9223372036854"),
        (["--my_name", "--loud"], "argument --my_name: expected one argument"),
        (["--nomy_name"], "unknown argument --nomy_name"),
        (["--loud=maybe"], "argument --loud"),
        (["--my_name", "two", "words"], "unknown argument words"),
        (["--my_name", "wrong"], "name must not be wrong"),
        (["--my_name", "a\udcff"], "the command line is not UTF-8 text"),
    ],
)
def test_mistakes_are_one_line_and_status_2(call, arguments, message):
    done = call(*arguments)
    assert done.stdout == ""
    assert done.stderr.startswith(f"speak.py: {message}")
    assert done.stderr.count("\n") == 1
    assert done.returncode == 2


@pytest.mark.parametrize("arguments", [["--", "--help"], ["--help"]])
def test_help_shows_every_flag_with_its_description(call, arguments):
    done = call(*arguments)
    assert done.returncode == 0
    shown = " ".join(done.stdout.split())
    assert "Say something." in shown
    assert "--length LENGTH how long it is, in %." in shown
    assert "--temperature TEMPERATURE 1 samples from the model's own" in shown
    assert "--noloud" in shown


@pytest.mark.parametrize("main", MAINS, ids=lambda main: main.__name__)
def test_every_flag_of_every_script_has_a_description(main):
    described = FLAGS.keys() | re.findall(r"^  (\w+): \w", inspect.getdoc(main), re.MULTILINE)
    assert inspect.signature(main).parameters.keys() <= described


def test_a_script_prints_the_versions(call):
    versions = r"gpt-2 [\d.]+, Python [\d.]+, TensorFlow .+\n"
    assert re.fullmatch(versions, call("--length", "x", "--version").stdout)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a POSIX shell and /dev/full")
@pytest.mark.parametrize(
    ("redirection", "printed", "message", "status"),
    [
        ("<&-", "(None, 1, 'x', False)\n", "", 0),
        ("2>&-", "(None, 1, 'x', False)\n", "", 0),
        (">&-", "", "", 0),
        ("> /dev/full", "", "speak.py: standard output: No space left on device\n", 1),
    ],
)
def test_a_closed_or_full_stream_is_no_traceback(script, redirection, printed, message, status):
    command = f'"{sys.executable}" "{script}" {redirection}'
    done = subprocess.run(command, shell=True, capture_output=True, text=True, env=ENVIRONMENT)
    assert (done.stdout, done.stderr, done.returncode) == (printed, message, status)


COMMANDS = """
from gpt2.command_line import run

def show(file: str, n: int, /, scale: float = 1):
    '''Show a file.

    Args:
      file: what to show.
      n: how often.
    '''
    print(repr((file, n, scale)))

def keep(*, place: str):
    '''Keep it.'''
    print(place)

run({"show": show, "keep": keep})
"""


@pytest.fixture
def call_commands(call, script):
    """As `call`, with a script of two commands, one with arguments that are no flags."""
    script.write_text(COMMANDS, encoding="utf-8")
    return call


@pytest.mark.parametrize(
    ("arguments", "printed"),
    [
        (["show", "007", "3"], "('007', 3, 1)"),
        (["show", "--scale", "2", "-", "3"], "('-', 3, 2.0)"),
        (["show", "a", "3", "--scale=-1"], "('a', 3, -1.0)"),
        (["keep", "--place", "-"], "-"),
    ],
)
def test_commands_have_arguments_and_flags(call_commands, arguments, printed):
    done = call_commands(*arguments)
    assert (done.stdout.strip(), done.stderr, done.returncode) == (printed, "", 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["shwo", "x"], "argument COMMAND: invalid choice: 'shwo'"),
        (["show"], "the following arguments are required: FILE, N"),
        (["show", "x", "y"], "N must be a whole number, got 'y'"),
        (["show", "x", "3", "4"], "unknown argument 4"),
        (["show", "x", "3", "--sclae", "4"], "unknown argument --sclae; did you mean --scale?"),
        (["keep"], "the following arguments are required: --place"),
    ],
)
def test_mistakes_in_commands_are_one_line_and_status_2(call_commands, arguments, message):
    done = call_commands(*arguments)
    assert (done.stdout, done.returncode) == ("", 2)
    assert done.stderr.startswith(f"speak.py: {message}")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--", "--help"], ["show", "Show a file.", "keep", "Keep it."]),
        (["show", "--help"], ["FILE", "what to show.", "--scale"]),
    ],
)
def test_help_shows_commands_and_their_arguments(call_commands, arguments, words):
    done = call_commands(*arguments)
    assert done.returncode == 0
    assert all(word in done.stdout for word in words)


def test_an_error_during_the_import_is_shown(call_process, script, tmp_path):
    (tmp_path / "tensorflow.py").write_text(
        "import os\n"
        "os.write(2, b'E0000 broken driver\\nI0000 all is well\\n')\n"
        "raise ImportError('x')\n"
    )
    script.write_text("from gpt2.tensorflow_session import import_tensorflow as f\nf()")
    done = call_process()
    assert "E0000 broken driver" in done.stderr
    assert "I0000" not in done.stderr
    assert "ImportError: x" in done.stderr


def test_scripts_print_what_they_load_before_they_import_numpy():
    scripts = {main.__module__ for main in MAINS}
    code = f"import sys, {', '.join(scripts)}\nassert 'numpy' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, check=True)
