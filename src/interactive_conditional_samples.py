#!/usr/bin/env python3
"""Continue the texts that are typed at a prompt, or come from a pipe or a file."""

import contextlib
import re
import sys
from collections.abc import Callable
from typing import Any

from gpt2.command_line import read_text, run
from gpt2.language_model import Sampler
from gpt2.sampling.sample_file import banner
from gpt2.text_stream import BYTE_ORDER_MARK, lines
from hparams import UserError, require

GREETING = '''\
Type the beginning of a text. """ on a line of its own begins and ends a text of several lines.
? shows the settings; a line such as `temperature 0.7` changes one. Ctrl-C stops a sample, Ctrl-D
leaves.'''
CHANGEABLE: dict[str, Callable[[str], Any]] = {
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
    device: str = "auto",
    dtype: str = "float32",
) -> None:
    """Continue texts.

    Where standard input is a terminal, asks for one text after another. From a pipe, each line
    is a text. With --prompt or --prompt_file, continues that text and ends.

    Args:
      nsamples: how many samples to print for a text.
      length: tokens in a sample; half of the model's n_ctx unless given.
      prompt: the text to continue.
      prompt_file: file that holds the text to continue; - is standard input.
    """
    require("nsamples", nsamples, nsamples >= 1, "at least 1")
    if prompt is not None and prompt_file is not None:
        raise UserError("give either --prompt or --prompt_file")
    if prompt_file is not None:
        prompt = read_text(prompt_file)
    sampler = Sampler(
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
        prompted=True,
    )
    session = Session(sampler, nsamples, stop_at_end)
    if prompt is not None:
        session.respond(prompt)
    elif sys.stdin.isatty():
        session.converse()
    else:
        session.answer_lines()


class Session:
    """A conversation with a model."""

    def __init__(self, sampler: Sampler, nsamples: int, stop_at_end: bool):
        self.sampler, self.nsamples, self.stop_at_end = sampler, nsamples, stop_at_end

    def converse(self) -> None:
        """Answer what is typed, until Ctrl-D, or Ctrl-C at the prompt."""
        with contextlib.suppress(ImportError):  # Windows has none
            import readline  # noqa: F401  gives input() its line editing and history
        self.sampler.load()
        print(GREETING)
        while True:
            try:
                text = read_prompt()
            except (EOFError, KeyboardInterrupt):
                print()
                return
            try:
                if not self.change(text):
                    self.respond(text)
            except UserError as error:
                print(error)
            except KeyboardInterrupt:  # ends the sample, not the session
                print()

    def answer_lines(self) -> None:
        """Answer each line of standard input; a line that can't be continued is passed over.

        Raises: UserError at the end if there was such a line.
        """
        wrong = 0
        for number, line in enumerate(lines(sys.stdin), 1):
            try:
                if number == 1:
                    line = line.removeprefix(BYTE_ORDER_MARK)
                if text := line.rstrip("\n"):
                    self.respond(text)
            except UserError as error:
                print(f"line {number}: {error}", file=sys.stderr)
                wrong += 1
        if wrong:
            raise UserError(f"{wrong} of the prompts could not be continued")

    def change(self, text: str) -> bool:
        """Obey a line that shows or changes settings. Returns: whether it was one."""
        if text.strip() == "?":
            settings = self.sampler.settings() | {"nsamples": self.nsamples}
            print("\n".join(f"{name} {settings[name]}" for name in CHANGEABLE))
            return True
        found = re.fullmatch(r"(\w+)[ =]+([-+.\w]+)", text.strip())
        if not found or found[1] not in CHANGEABLE:
            return False
        try:
            value = CHANGEABLE[found[1]](found[2])
        except ValueError:
            raise UserError(f"{found[1]} must be a number, got {found[2]!r}") from None
        if found[1] == "nsamples":
            require("nsamples", value, value >= 1, "at least 1")
            self.nsamples = value
        else:
            self.sampler.change(**{found[1]: value})
        return True

    def respond(self, raw_text: str) -> None:
        """Print samples that continue a text: the first of a batch as it is made.

        Raises: UserError if the text is empty or too long.
        """
        if not raw_text:
            raise UserError("Prompt should not be empty!")
        context = self.sampler.context(raw_text)
        for start in range(1, self.nsamples + 1, self.sampler.batch_size):
            batch = range(start, min(start + self.sampler.batch_size, self.nsamples + 1))
            rows: list[list[int]] = [[] for _ in batch]
            show = self.sampler.encoder.stream()
            print(banner(start))
            for piece in self.sampler.pieces([context] * len(batch), batch, self.stop_at_end):
                print(show(piece[0]), end="", flush=True)
                for row, ids in zip(rows, piece, strict=True):
                    row += ids
            print(show([], final=True))
            for number, row in zip(batch[1:], rows[1:], strict=True):
                print(banner(number))
                print(self.sampler.encoder.decode(row), flush=True)
        print("=" * 80)


def read_prompt() -> str:
    """Ask for a text: one line, or several between lines of three quotes."""
    line = input("Model prompt >>> ")
    if line.strip() != '"""':
        return line
    return "\n".join(iter(lambda: input("... "), '"""'))


if __name__ == "__main__":
    run(interact_model)
