"""Measuring how well a model predicts a long text, in runs that can be resumed."""

import dataclasses
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from gpt2.atomic_file import replacing
from gpt2.evaluation.texts import counted
from gpt2.evaluation.totals import Totals
from gpt2.file_lock import write_lock
from gpt2.scorer import Scorer
from gpt2.text_stream import Counts, text_chunks
from gpt2.user_file import parse_json, read_text
from user_error import UserError

OnRead = Callable[[int], object]  # called with the number of bytes that were read


class SavedState:
    """The progress of a long evaluation: a small JSON file, which is always replaced as a whole.

    Args:
      path: the file; None writes nothing.
      run: the settings of the run, by name. The file of a run with other settings is refused.
    Raises: UserError
    """

    def __init__(self, path: str | None, run: dict[str, Any]):
        self.path = path and Path(path)
        self.run = {"version": 3, **run}  # of the fields of Totals
        self.done: dict[str, Any] = {}
        if not self.path or not self.path.exists():
            return
        try:
            found = parse_json(read_text(self.path))
            other, self.done = dict(found["run"]), dict(found["done"])
        except (OSError, ValueError, KeyError, TypeError):
            raise UserError(
                f"{path} is not the state of an evaluation; delete it, or name another file"
            ) from None
        for name, value in self.run.items():
            if other.get(name) != value:
                raise UserError(
                    f"{path} belongs to a run with another {name} ({other.get(name)}, now {value});"
                    " repeat that run's flags, or name another file"
                )

    def put(self, key: str, value: Any) -> None:
        """Keep a value, which JSON must be able to hold, as `done[key]`."""
        self.done[key] = value
        if self.path:
            with replacing(self.path) as file:
                file.write(json.dumps({"run": self.run, "done": self.done}).encode())


@contextmanager
def open_state(path: str | None, run: dict[str, Any]) -> Iterator[SavedState]:
    """A state that no other run can use until this one ends. Raises: UserError."""
    if path and not Path(path).absolute().parent.is_dir():
        raise UserError(f"{path}: no such folder")
    with write_lock(Path(path)) if path else nullcontext():
        yield SavedState(path, run)


def measure(
    pieces: Iterable[str], scorer: Scorer, state: SavedState, key: str = "totals"
) -> Totals:
    """Predict every token of a text once, the first one after `<|endoftext|>`.

    Args:
      pieces: the text, cut by text_stream.safe_pieces.
      state, key: where the sums are kept. Windows that they include are not computed again.
    Raises: UserError if the text is empty.
    """
    totals = Totals(**(state.done.get(key, {})))
    for _, scores in scorer.scan(scorer.encode(pieces), skip=totals.windows):
        totals.add(scores)
        state.put(key, dataclasses.asdict(totals))
    if not totals.tokens:
        raise UserError("the text is empty")
    return totals


def measure_perplexity(
    scorer: Scorer, path: str, on_read: OnRead, state: SavedState
) -> dict[str, float]:
    """All totals of a text file of any length, by name. Args: as in tasks.measure_task."""
    counts = Counts()
    pieces = counted(text_chunks(path, on_read=on_read), counts)
    return measure(pieces, scorer, state).summary(counts)
