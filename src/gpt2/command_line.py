"""Shared by all scripts: flags and one-line errors."""

import difflib
import importlib.metadata
import inspect
import logging
import os
import platform
import re
import signal
import sys
import typing
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from pathlib import Path

from gpt2 import background
from gpt2.model_folder import DEFAULT_MODEL, EMBEDDED_MODEL
from gpt2.standard_streams import prepare_streams
from gpt2.terminal import escaped, in_notebook
from gpt2.typed_value import parser
from user_error import UserError

VERSION = "2.0"
HELP = {"--", "--help", "-h"}  # fire's own flags follow --, and only --help is let through
Main = Callable[..., None] | dict[str, Callable[..., None]]
FLAGS = {  # descriptions for the help, unless a script's docstring has its own
    "model_name": f"folder of the model in models_dir; {DEFAULT_MODEL} by default, or "
    f"{EMBEDDED_MODEL} if that is not there.",
    "models_dir": "folder that contains the models.",
    "seed": "the same seed makes the same samples again; a new one by default.",
    "nsamples": "number of samples; 0 means no limit: until Ctrl-C.",
    "batch_size": "number of samples made at the same time; affects only speed and memory. By "
    "default, as many as fit in a quarter of the memory, at most 32.",
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
    "workers": "with --ray: how many; by default 1 with local, else as many as find room.",
    "cpus_per_worker": "with --ray: cores of each worker; by default all of a node, or 1 with a "
    "GPU.",
    "gpus_per_worker": "with --ray: GPUs of each worker, 0.5 for example; by default 1 if there "
    "are any.",
}


def run(main: Main) -> None:
    """Call `main` with the flags of the command line, and end the process as a script should.

    The parameters of `main` are the flags, with their types and defaults; `-- --help` shows its
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
        _check_encoding(sys.argv[1:])
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
    """Prepare the standard streams and Ctrl-C, and print what the package logs on stderr."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_DFL:  # see check_installation
        signal.signal(signal.SIGINT, signal.default_int_handler)
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


def _document(main: Callable[..., None]) -> str:
    text = inspect.getdoc(main) or ""
    if "\nArgs:\n" not in text:
        text += "\n\nArgs:"
    for name in inspect.signature(main).parameters:
        if name in FLAGS and f"\n  {name}: " not in text:
            text += f"\n  {name}: {FLAGS[name]}"
    return text


def _check_encoding(arguments: list[str]) -> None:
    """Raise UserError for bytes that are not UTF-8; no text or record could contain them."""
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError:
            wrong = f"{argument} is not UTF-8 text; use other characters, and rename such a file"
            raise UserError(wrong) from None


def _call(main: Main, arguments: list[str]) -> None:
    """Call what a command line asks for, or show the help and end the process."""
    words = [*HELP.intersection(arguments)]
    if words:
        first = min(map(arguments.index, words))
        _show_help(main, arguments[:first], arguments[first:])
    if isinstance(main, dict):
        chosen, *arguments = arguments or [""]
        if chosen not in main:
            wrong = f"unknown command {chosen!r}; choose one" if chosen else "choose a command"
            raise UserError(f"{wrong}: {', '.join(main)}; -- --help describes them")
        main = main[chosen]
    values = _values(main, arguments)
    main(*values.args, **values.kwargs)


def _show_help(main: Main, before: list[str], asked: list[str]) -> None:
    """Show fire's help and end the process. Raises: UserError if there are other words."""
    if asked == ["--"] or (asked[0] == "--" and not HELP.issuperset(asked)):
        raise UserError("only --help may follow --; put other flags before it")
    import fire

    functions = main if isinstance(main, dict) else {"": main}
    for function in functions.values():
        function.__doc__ = _document(function)
    command = [word for word in before[:1] if word in functions]
    fire.Fire(main, command=[*command, "--", "--help"])


def _values(function: Callable[..., None], arguments: list[str]) -> inspect.BoundArguments:
    """What a function is to be called with. Raises: UserError, also for a missing argument."""
    signature = inspect.signature(function)
    given, values = _given_texts(signature.parameters, arguments), signature.bind_partial()
    for name, parameter in signature.parameters.items():
        if name in given and _is_tuple(parameter):
            values.arguments[name] = tuple(given[name])
        elif name in given:
            read = parser(_label(parameter), parameter.annotation)
            values.arguments[name] = read(given[name][-1])
        elif parameter.default is parameter.empty:
            raise UserError(f"{_label(parameter)} is needed; -- --help describes it")
    return values


def _given_texts(
    parameters: Mapping[str, inspect.Parameter], arguments: list[str]
) -> dict[str, list[str]]:
    """The texts that are given for each parameter.

    fire would report unknown names and stray words only after the call, guess the types, and read a
    lone - as a separator.
    """
    positional = [name for name, p in parameters.items() if p.kind is p.POSITIONAL_ONLY]
    known = [name for name in parameters if name not in positional]
    switches = [name for name in known if parameters[name].annotation is bool]
    given, rest = defaultdict[str, list[str]](list), deque(arguments)
    while rest:
        argument = rest.popleft()
        if _is_flag(argument):
            flag, equals, text = _spell_out(argument, known).partition("=")
            name = flag.lstrip("-").replace("-", "_")
            if name not in known and name.removeprefix("no") in switches and not equals:
                name, equals, text = name.removeprefix("no"), "=", "False"
            if name not in known:
                close = difflib.get_close_matches(name, known, 1)
                hint = f"did you mean --{close[0]}?" if close else "-- --help lists the flags"
                raise UserError(f"unknown flag {flag}; {hint}")
            follows = bool(rest) and not _is_flag(rest[0])
            if name in switches and positional:
                follows = follows and rest[0] in ("True", "False")
            if not equals and not follows and name not in switches:
                hint = f"; one that begins with - is written {flag}={rest[0]}" if rest else ""
                raise UserError(f"{flag} needs a value{hint}")
            given[name].append(text if equals else rest.popleft() if follows else "True")
        elif positional:
            given[positional[0]].append(argument)
            if not _is_tuple(parameters[positional[0]]):
                positional.pop(0)  # a tuple takes all that follow
        else:
            raise UserError(f"unexpected argument {argument!r}; put quotes around text with spaces")
    return given


def _is_flag(argument: str) -> bool:
    return re.match("--|-[a-zA-Z]", argument) is not None


def _is_tuple(parameter: inspect.Parameter) -> bool:
    return typing.get_origin(parameter.annotation) is tuple


def _spell_out(flag: str, known: list[str]) -> str:
    """A flag of one letter in full, as fire's help lists those that are not ambiguous."""
    letter, equals, value = flag.partition("=")
    names = [name for name in known if letter == f"-{name[0]}"]
    return f"--{names[0]}{equals}{value}" if len(names) == 1 else flag


def _label(parameter: inspect.Parameter) -> str:
    """A parameter's name on the command line."""
    positional = parameter.kind is parameter.POSITIONAL_ONLY
    return parameter.name.upper() if positional else f"--{parameter.name}"
