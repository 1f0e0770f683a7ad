"""Measuring how well a model predicts a long text, in runs that can be resumed."""

import dataclasses
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
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

    def __init__(self, path: Path | None, run: dict[str, Any]):
        self.path, self.run = path, run
        self.done: dict[str, Any] = {}
        if not self.path or not self.path.exists():
            return
        try:
            found = parse_json(read_text(self.path))
            changed = [name for name, value in run.items() if found["run"].get(name) != value]
            self.done = dict(found["done"])
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            raise UserError(
                f"{path} is not the state of an evaluation; delete it, or name another file"
            ) from None
        if changed:
            raise UserError(
                f"{path} belongs to a run with another {' and '.join(changed)}; "
                "repeat that run's flags, or name another file"
            )

    def put(self, key: str, value: Any) -> None:
        """Keep a value, which JSON must be able to hold, as `done[key]`."""
        self.done[key] = value
        if self.path:
            with replacing(self.path) as file:
                file.write(json.dumps({"run": self.run, "done": self.done}).encode())


@contextmanager
def open_state(path: str | None, scorer: Scorer, **run: str) -> Iterator[SavedState]:
    """The state of a run with one model, which no other run can use until this one ends.

    Raises: UserError
    """
    if not path:
        yield SavedState(None, {})
        return
    if not Path(path).absolute().parent.is_dir():
        raise UserError(f"{path}: no such folder")
    model = {"model": scorer.model.fingerprint(), "dtype": scorer.model.dtype}
    options = {"window": scorer.window, "stride": scorer.stride}
    with write_lock(Path(path)):
        yield SavedState(Path(path), run | model | options)


def measure(text: Iterable[str], scorer: Scorer, state: SavedState, key: str = "totals") -> Totals:
    """Predict every token of a text once, the first one after `<|endoftext|>`.

    Args:
      text: in chunks of any sizes.
      state, key: where the sums are kept. Windows that they include are not computed again.
    Raises: UserError if the text is empty.
    """
    totals = Totals(**state.done.get(key, {}))
    for _, scores in scorer.scan(text, skip=totals.windows):
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
