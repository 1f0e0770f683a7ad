"""Shared by all scripts: flags and one-line errors."""

import argparse
import difflib
import importlib.metadata
import inspect
import logging
import os
import platform
import re
import sys
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from gpt2 import background
from gpt2.model_folder import DEFAULT_MODEL, EMBEDDED_MODEL
from gpt2.standard_streams import prepare_streams
from gpt2.terminal import escaped, in_notebook
from gpt2.typed_value import parse
from user_error import UserError

VERSION = "2.0"
HYPHENATED = re.compile(r"^--(\w+-[\w-]*)(?==|$)")  # a flag with hyphens for underscores
Main = Callable[..., None] | dict[str, Callable[..., None]]
FLAGS = {  # descriptions for the help, unless a script's docstring has its own
    "model_name": f"folder of the model in models_dir; {DEFAULT_MODEL} by default, or "
    f"{EMBEDDED_MODEL} if that is not there.",
    "models_dir": "folder that contains the models.",
    "seed": "the same seed makes the same samples again; a new one by default.",
    "nsamples": "number of samples; 0 means no limit: until Ctrl-C.",
    "batch_size": "number of samples, or windows of a text, computed at the same time; affects "
    "only speed and memory. Unless it is given, a dump takes as many samples as fit in a quarter "
    "of the memory, at most 32.",
    "window": "tokens that the model sees at once; n_ctx of the model by default.",
    "stride": "tokens from one window to the next; by default, as many as in the window. Fewer "
    "give tokens more context, and take longer.",
    "state": "file to keep the progress in; the same command continues an interrupted run.",
    "length": "number of tokens in a sample; by default, and at most, n_ctx of the model.",
    "temperature": "1 samples from the model's own probabilities; lower values prefer likely "
    "tokens; 0 always takes the most likely one.",
    "top_k": "sample from the k most likely tokens, for example 40; 0 means all.",
    "top_p": "sample from the most likely tokens that together have this probability, for example "
    "0.9; 1 means all.",
    "stop_at_end": "end a sample where the model ends the text, with <|endoftext|>.",
    "stop": r"end a sample before this text, which is not printed. \n is a line end. Can be given "
    "several times.",
    "output": "write to this file and not to the terminal. After an interruption, the same command "
    "continues it.",
    "format": "text, or jsonl for one JSON object per line.",
    "shard": "i/n makes only the samples i, i+n, i+2n, ..., so that n machines can share a dump.",
    "dtype": "precision. float32 gives the numbers of the original; bfloat16, with 8 bits, takes "
    "half the memory and is faster on GPUs and on CPUs with avx512_bf16 or amx_bf16; tf32 rounds "
    "the factors of products to 10-bit fractions, on GPUs that can.",
    "device": "cpu, gpu, gpu:1 and so on; auto takes the first GPU, or the CPU if there is none.",
    "ray": "let the workers of a Ray cluster make the samples. local starts Ray on this machine; "
    "auto, HOST:PORT or ray://HOST:PORT joins a cluster.",
    "workers": "with --ray: number of workers; by default 1 with local, else as many as fit.",
    "cpus_per_worker": "with --ray: cores of each worker; by default all of a node, or 1 with a "
    "GPU.",
    "gpus_per_worker": "with --ray: GPUs of each worker, 0.5 for example; by default 1 if there "
    "are any.",
}


def run(main: Main) -> None:
    """Call `main` with the flags of the command line, and end the process as a script should.

    The parameters of `main` are the flags, with their types and defaults; `--help` shows its
    docstring, and FLAGS for the parameters that it leaves out. A positional-only parameter is an
    argument without a flag. If `main` is a dict of functions, the first argument selects one. A
    UserError becomes one line on stderr and exit status 2; Ctrl-C is status 130; a closed pipe
    (`| head`) is not an error.
    """
    status = 0
    try:
        begin_script()
        if "--version" in sys.argv[1:]:
            print(versions())
            return
        _call(main, sys.argv[1:])
        sys.stdout.flush()
    except UserError as error:
        _print_error(str(error))
        status = error.exit_status
    except BrokenPipeError:
        _discard_stdout()
    except OSError as error:  # a full disk, say
        place = error.filename or "standard output"
        _print_error(f"{place}: {error.strerror}")
        if not error.filename:
            _discard_stdout()
        status = 1
    except KeyboardInterrupt:
        status = 130
    if getattr(main, "__module__", "") == "__main__" and not in_notebook():
        background.leave(status)
    if status:
        sys.exit(status)


def begin_script() -> None:
    """Prepare the standard streams, and print what the package logs on stderr."""
    prepare_streams()
    log = logging.getLogger("gpt2")
    log.setLevel(logging.INFO)
    log.handlers[:] = [logging.StreamHandler()]


def _print_error(message: str) -> None:
    print(f"{Path(sys.argv[0]).name}: {escaped(message)}", file=sys.stderr)


def versions() -> str:
    """What --version prints."""
    try:
        tensorflow = importlib.metadata.version("tensorflow")
    except importlib.metadata.PackageNotFoundError:
        tensorflow = "of another package"
    return f"gpt-2 {VERSION}, Python {platform.python_version()}, TensorFlow {tensorflow}"


def _discard_stdout() -> None:
    """Python flushes stdout once more at exit; that must not fail again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class Parser(argparse.ArgumentParser):
    """Reports a mistake as a UserError, which becomes one line."""

    def __init__(self, **options: Any):
        layout = argparse.RawDescriptionHelpFormatter  # keeps the paragraphs of the docstring
        super().__init__(allow_abbrev=False, formatter_class=layout, **options)

    def error(self, message: str) -> NoReturn:
        """Raise UserError."""
        raise UserError(message)


def _call(main: Main, arguments: list[str]) -> None:
    """Call what a command line asks for, or show the help and end the process."""
    try:
        "".join(arguments).encode()
    except UnicodeEncodeError:  # no text or record could contain it
        raise UserError(
            "the command line is not UTF-8 text; use other characters, and rename such a file"
        ) from None
    parser = Parser()
    if isinstance(main, dict):
        commands = parser.add_subparsers(metavar="COMMAND", required=True)
        for name, function in main.items():
            summary = (inspect.getdoc(function) or "").partition("\n")[0]
            _add_parameters(commands.add_parser(name, help=summary), function)
    else:
        _add_parameters(parser, main)
    # Hyphens in a flag are underscores, and -- may come before --help, as the original needed it.
    words = [HYPHENATED.sub(_underscored, word) for word in arguments if word != "--"]
    given, unknown = parser.parse_known_args(words)
    signature = inspect.signature(given.function)
    if unknown:
        flags = [f"--{name}" for name in signature.parameters]
        close = difflib.get_close_matches(unknown[0].partition("=")[0], flags, 1)
        hint = f"did you mean {close[0]}?" if close else "--help describes the flags"
        raise UserError(f"unknown argument {unknown[0]}; {hint}")
    values = signature.bind_partial()
    for name, parameter in signature.parameters.items():
        if hasattr(given, name):
            value = getattr(given, name)
            if isinstance(value, str):
                value = parse(_label(parameter), value, parameter.annotation)
            values.arguments[name] = tuple(value) if isinstance(value, list) else value
    given.function(*values.args, **values.kwargs)


def _underscored(flag: re.Match[str]) -> str:
    return "--" + flag[1].replace("-", "_")


def _add_parameters(parser: Parser, function: Callable[..., None]) -> None:
    """Let a parser accept the parameters of a function, which its docstring or FLAGS describe."""
    parser.description, _, described = (inspect.getdoc(function) or "").partition("\nArgs:\n")
    own = re.findall(r"^  (\w+): (.+(?:\n    .+)*)", described, re.MULTILINE)
    texts = {name: text.replace("%", "%%") for name, text in [*FLAGS.items(), *own]}
    parser.set_defaults(function=function)
    for name, parameter in inspect.signature(function).parameters.items():
        is_tuple = typing.get_origin(parameter.annotation) is tuple
        needed = parameter.default is parameter.empty
        options = {"help": texts.get(name, ""), "default": argparse.SUPPRESS}
        if not needed and parameter.default not in (None, ()):
            options["help"] += f" Default: {parameter.default}."
        if parameter.kind is parameter.POSITIONAL_ONLY:
            number = ("+" if needed else "*") if is_tuple else None
            parser.add_argument(name, metavar=_label(parameter), nargs=number, **options)
        elif parameter.annotation is bool:
            parser.add_argument(f"--{name}", f"--{name}=True", action="store_true", **options)
            off = f"--no{name}", f"--{name}=False"
            parser.add_argument(*off, dest=name, action="store_false", default=argparse.SUPPRESS)
        else:
            action = "append" if is_tuple else "store"
            parser.add_argument(f"--{name}", action=action, required=needed, **options)


def _label(parameter: inspect.Parameter) -> str:
    """A parameter's name on the command line."""
    positional = parameter.kind is parameter.POSITIONAL_ONLY
    return parameter.name.upper() if positional else f"--{parameter.name}"
