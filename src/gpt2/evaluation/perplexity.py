"""How well a model predicts a long text, in a run that can be interrupted and resumed."""

import dataclasses
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from gpt2.atomic_file import replacing
from gpt2.evaluation.totals import Totals
from gpt2.file_lock import write_lock
from gpt2.scorer import Scorer
from gpt2.user_file import parse_json, read_text
from user_error import UserError

OnRead = Callable[[int], object]  # called with the number of bytes that were read


class SavedState:
    """The progress of a long evaluation, a small JSON file that is replaced in one step.

    Args:
      path: the file; None keeps nothing.
      run: what makes up the run, by name. A file that another run left is refused.
    Raises: UserError
    """

    def __init__(self, path: str | None, run: dict[str, Any]):
        self.path = path and Path(path)
        run = {"version": 2, **run}  # of the fields of Totals
        self.content: dict[str, Any] = {"run": run, "done": {}}
        if not self.path or not self.path.exists():
            return
        try:
            found = parse_json(read_text(self.path))
            if not isinstance(found["done"], dict):
                raise TypeError
            differing = [name for name in run if found["run"].get(name) != run[name]]
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            raise UserError(
                f"{path} is not the state of an evaluation; delete it, or name another file"
            ) from None
        if differing:
            name = differing[0]
            raise UserError(
                f"{path} belongs to a run with another {name} ({found['run'].get(name)}, now "
                f"{run[name]}); repeat that run's flags, or name another file"
            )
        self.content = found

    def get(self, key: str) -> Any:
        """What was put under a key, or None."""
        return self.content["done"].get(key)

    def put(self, key: str, value: Any) -> None:
        """Remember a value that JSON can hold."""
        self.content["done"][key] = value
        if self.path:
            with replacing(self.path) as file:
                file.write(json.dumps(self.content).encode())


@contextmanager
def open_state(path: str | None, run: dict[str, Any]) -> Iterator[SavedState]:
    """A state that no other run can use before this one ends. Raises: UserError."""
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
      state, key: where the sums are kept; windows that they include are not computed again.
    Raises: UserError if the text is empty.
    """
    totals = Totals(**(state.get(key) or {}))
    for _, scores in scorer.scan(scorer.encode(pieces), skip=totals.windows):
        totals.add(scores)
        state.put(key, dataclasses.asdict(totals))
    if not totals.tokens:
        raise UserError("the text is empty")
    return totals
