#!/usr/bin/env python3
"""Continue texts that are typed at a prompt, or read from a pipe or a file."""

import contextlib
import dataclasses
import signal
import sys
import threading
from typing import Any

from gpt2.command_line import run
from gpt2.language_model import LanguageModel
from gpt2.sample_text import read_stop_strings
from gpt2.sampling.batch import SampleBatch, StopConditions, make_samples
from gpt2.sampling.sample_file import PlainText, Sample, Stream
from gpt2.terminal import in_notebook
from gpt2.text_stream import lines, text_chunks
from gpt2.typed_value import parse
from user_error import UserError, require

PROMPT = "Model prompt >>> "
GREETING = '''\
Type the beginning of a text and press Enter; the model continues it.
Lines of """ begin and end a text of several lines. ? shows the settings, and
/temperature 0.7 changes one. Ctrl-C stops a sample or clears the line.
/quit or Ctrl-D leaves.'''
LEAVE = ("/quit", "/exit", "quit", "exit")
SETTINGS: dict[str, type] = {  # what can be changed at the prompt
    "length": int,
    "temperature": float,
    "top_k": int,
    "top_p": float,
    "nsamples": int,
    "seed": int,
}


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
        prompt = "".join(text_chunks(prompt_file))
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
        elif sys.stdin.isatty() or in_notebook():
            with contextlib.suppress(ImportError):  # Windows has none
                import readline  # noqa: F401  # input() then edits lines and recalls earlier ones
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

    def beginning(self, sample: Sample) -> str:
        """The text without the prompt."""
        return super().beginning(dataclasses.replace(sample, prompt=None))


class Conversation:
    """A conversation with a model."""

    def __init__(self, lm: LanguageModel, nsamples: int, ends: StopConditions):
        self.lm, self.nsamples, self.ends = lm, nsamples, ends
        self.next_number = 1  # counts on from prompt to prompt, so none gets the same sample twice

    def converse(self) -> None:
        """Answer typed lines until /quit or Ctrl-D.

        Raises: UserError if the model cannot be loaded.
        """
        print(GREETING)
        self.lm.prepare_in_background(failed=interrupt)
        while True:
            try:
                line = input(PROMPT)
                if line.strip() in LEAVE:
                    return
                self.answer(line)
            except UserError as error:
                print(error)
            except EOFError:
                print()
                return
            except KeyboardInterrupt:
                print()
                self.lm.session.check_loading()

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
            self.change(read_settings(command))
        else:
            self.respond(line)

    def answer_lines(self) -> None:
        """Answer each line of standard input; one that cannot be continued is reported.

        Raises: UserError at the end if there was such a line.
        """
        wrong = 0
        for number, line in enumerate(lines(text_chunks("-")), 1):
            try:
                if text := line.rstrip("\n"):
                    self.respond(text)
            except UserError as error:
                print(f"line {number}: {error}", file=sys.stderr)
                wrong += 1
        if wrong:
            raise UserError(f"{wrong} of the prompts could not be continued")

    def settings(self) -> dict[str, str]:
        """The settings that can be changed, as they are shown."""
        values = self.lm.settings() | {"nsamples": self.nsamples}
        return {name: str(values[name]).removesuffix(".0") for name in SETTINGS}

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
            for samples in make_samples(self.lm, batch, self.ends, at_once=True):
                out.show(samples[0])
            out.write(samples)
        print("=" * 80)


def read_settings(line: str) -> dict[str, Any]:
    """The settings that a line changes, such as `/temperature 0.7` or `/top_k 40 top_p 0.9`.

    Raises: UserError if a name or a value is wrong.
    """
    words = line.removeprefix("/").replace("=", " ").split()
    names, texts = words[::2] or [""], words[1::2]
    for name in names:
        if name not in SETTINGS:
            raise UserError(
                f"there is no setting {name!r}, only {', '.join(SETTINGS)}; to continue a text "
                'that begins with /, type it between lines of """'
            )
    if len(texts) < len(names):
        raise UserError(f"{names[-1]} needs a value; ? shows the settings")
    pairs = zip(names, texts, strict=True)
    return {name: parse(name, text, SETTINGS[name]) for name, text in pairs}


def interrupt() -> None:
    """End the main thread's wait for a line, as Ctrl-C does; Windows waits for it."""
    main = threading.main_thread().ident
    if main is not None and hasattr(signal, "pthread_kill"):
        signal.pthread_kill(main, signal.SIGINT)


if __name__ == "__main__":
    run(interact_model)
