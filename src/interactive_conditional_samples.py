#!/usr/bin/env python3
"""Continue texts that are typed at a prompt, or read from a pipe or a file."""

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gpt2.command_line import run
from gpt2.language_model import LanguageModel
from gpt2.sample_text import read_stop_strings
from gpt2.sampling.batch import SampleBatch, StopConditions, make_samples
from gpt2.sampling.sample_file import PlainText, Stream
from gpt2.sampling.setting_line import KINDS, LONE_SETTING, parse_settings
from gpt2.terminal import in_notebook
from gpt2.text_stream import BYTE_ORDER_MARK, lines, stdin_chunks, text_chunks
from user_error import UserError, require

PROMPT = "Model prompt >>> "
GREETING = '''\
Type the beginning of a text and press Enter; the model continues it.
Lines of """ begin and end a text of several lines. ? shows the settings, and
/temperature 0.7 changes one. Ctrl-C stops a sample or clears the line.
/quit or Ctrl-D leaves.'''
LEAVE = ("/quit", "/exit", "quit", "exit")
SILENCE = 3  # seconds without a line; then somebody may be typing, and not know what happens
HISTORY = Path("~/.gpt2_history")  # what was typed, for the next session


def interact_model(
    model_name: str | None = None,
    seed: int | None = None,
    nsamples: int = 1,
    batch_size: int = 1,
    length: int | None = None,
    temperature: float = 1,
    top_k: int = 0,
    top_p: float = 1,
    models_dir: str = "models",
    prompt: str | None = None,
    prompt_file: str | None = None,
    stop_at_end: bool = True,
    stop: tuple[str, ...] = (),
    device: str = "auto",
    dtype: str = "float32",
) -> None:
    """Continue texts.

    In a terminal, the script asks for one text after another. From a pipe, each line is a text.
    With --prompt or --prompt_file, it continues that text and ends.

    Args:
      nsamples: number of samples for each text. Their numbers continue from text to text.
      length: number of tokens in a sample; half of the model's n_ctx by default.
      prompt: the text to continue.
      prompt_file: file with the text to continue; - is standard input.
    """
    require("nsamples", nsamples, nsamples >= 1, "at least 1")
    if prompt is not None and prompt_file is not None:
        raise UserError("give either --prompt or --prompt_file")
    if prompt_file is not None:
        chunks = stdin_chunks() if prompt_file == "-" else text_chunks(prompt_file)
        prompt = "".join(chunks)
    ends = StopConditions(stop_at_end, read_stop_strings(stop))
    lm = LanguageModel(
        model_name=model_name,
        models_dir=models_dir,
        seed=seed,
        batch_size=batch_size,
        length=length,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        device=device,
        dtype=dtype,
    )
    conversation = Conversation(lm, nsamples, ends)
    try:
        if prompt is not None:
            conversation.respond(prompt)
        elif in_notebook():
            conversation.converse()
        elif sys.stdin.isatty():
            with history():
                conversation.converse()
        else:
            conversation.answer_lines()
    finally:
        if conversation.next_number > 1:  # --seed makes the samples again
            print(f"seed {lm.seed}", file=sys.stderr)


class Continuations(PlainText):
    """Samples as the original prints them here: without the prompt, which has just been typed."""

    def header(self, settings: dict[str, Any]) -> str:
        """Nothing."""
        return ""

    def beginning(self, number: int, prompt: str | None, text: str) -> str:
        """What a sample begins with that has this text so far."""
        return super().beginning(number, None, text)


class Conversation:
    """A conversation with a model."""

    def __init__(self, lm: LanguageModel, nsamples: int, ends: StopConditions):
        self.lm, self.nsamples, self.ends = lm, nsamples, ends
        self.next_number = 1  # counts on from prompt to prompt, so none gets the same sample twice

    def converse(self) -> None:
        """Answer typed lines until /quit, Ctrl-D, or Ctrl-C twice with nothing typed.

        Raises: UserError if the model cannot be loaded, or a notebook cannot ask.
        """
        print(GREETING)
        self.lm.prepare_in_background(failed=interrupt)
        presses = 0  # of Ctrl-C, one after the other, with nothing typed
        while presses < 2:
            line = None
            try:
                line = input(PROMPT)
                presses = 0
                if line.strip() in LEAVE:
                    return
                self.answer(line)
            except UserError as error:
                print(error)
            except EOFError:
                print()
                return
            except NotImplementedError:  # what runs this notebook has nobody to ask
                raise UserError("nobody can type here; give a --prompt") from None
            except KeyboardInterrupt:
                print()
                self.lm.session.check_loading()
                presses = 0 if line is not None or half_typed() else presses + 1
                if presses == 1:
                    print("Ctrl-C again, or Ctrl-D, leaves.")

    def answer(self, line: str) -> None:
        """Show or change settings, or continue a text, as a typed line asks."""
        command = line.strip()
        if command == '"""':
            self.respond("\n".join(iter(lambda: input("... "), '"""')))
        elif command in ("?", "/?", "help", "/help"):
            if "help" in command:
                print(GREETING)
            print("\n".join(f"{name} {value}" for name, value in self.settings().items()))
        elif command.startswith("/"):
            self.change(parse_settings(command))
        else:
            self.respond(line)
            if LONE_SETTING.fullmatch(command):
                print(f"To change the setting, type /{command}")

    def answer_lines(self) -> None:
        """Answer each line of standard input; one that cannot be continued is reported.

        Raises: UserError at the end if there was such a line.
        """
        wrong = 0
        notice = threading.Timer(SILENCE, report_waiting)
        notice.daemon = True
        notice.start()
        for number, line in enumerate(lines(sys.stdin), 1):
            notice.cancel()
            try:
                if number == 1:
                    line = line.removeprefix(BYTE_ORDER_MARK)
                if text := line.rstrip("\n"):
                    self.respond(text)
            except UserError as error:
                print(f"line {number}: {error}", file=sys.stderr)
                wrong += 1
        notice.cancel()
        if wrong:
            raise UserError(f"{wrong} of the prompts could not be continued")

    def settings(self) -> dict[str, str]:
        """The settings that can be changed, as they are shown."""
        values = self.lm.settings() | {"nsamples": self.nsamples}
        return {name: str(values[name]).removesuffix(".0") for name in KINDS}

    def change(self, changes: dict[str, Any]) -> None:
        """Change settings and print the new ones. Raises: UserError, and changes nothing."""
        nsamples = changes.get("nsamples", self.nsamples)
        require("nsamples", nsamples, nsamples >= 1, "at least 1")
        self.lm.change(**{name: changes[name] for name in changes if name != "nsamples"})
        self.nsamples = nsamples
        if "seed" in changes:
            self.next_number = 1
        now = self.settings()
        print(", ".join(f"{name} is now {now[name]}" for name in changes))

    def respond(self, raw_text: str) -> None:
        """Print samples that continue a text: the first of a batch as it is made.

        Raises: UserError if the text is empty or too long.
        """
        if not raw_text:
            raise UserError("Prompt should not be empty!")
        self.lm.context(raw_text)  # reports a text that is too long before the model is loaded
        self.lm.prepare(at_once=True)
        out, end = Stream(sys.stdout, Continuations(), {}), self.next_number + self.nsamples
        for start in range(self.next_number, end, self.lm.batch_size):
            numbers = range(start, min(start + self.lm.batch_size, end))
            self.next_number = numbers.stop  # also if the batch is interrupted
            batch = SampleBatch(numbers, [raw_text] * len(numbers))
            out.write(make_samples(self.lm, batch, self.ends, lambda n_tokens: None, out.show))
        print("=" * 80)


def report_waiting() -> None:
    """Explain the silence, as some terminals look like a pipe to Python."""
    print("waiting for standard input: each line is a text to continue", file=sys.stderr)


def interrupt() -> None:
    """End the main thread's wait for a line, as Ctrl-C does; Windows waits for it."""
    main = threading.main_thread().ident
    if main is not None and hasattr(signal, "pthread_kill"):
        signal.pthread_kill(main, signal.SIGINT)


def half_typed() -> bool:
    """Whether Ctrl-C interrupted a line that was not empty, as far as readline knows."""
    return bool("readline" in sys.modules and sys.modules["readline"].get_line_buffer())


@contextlib.contextmanager
def history() -> Iterator[None]:
    """Line editing for input(), and the lines of earlier sessions, where there is readline."""
    try:
        import readline
    except ImportError:  # Windows has none
        yield
        return
    readline.set_history_length(1000)
    with contextlib.suppress(OSError, RuntimeError):  # no file yet; no home
        readline.read_history_file(HISTORY.expanduser())
    try:
        yield
    finally:
        with contextlib.suppress(OSError, RuntimeError):
            readline.write_history_file(HISTORY.expanduser())


if __name__ == "__main__":
    run(interact_model)
