"""The text of a sample while its tokens are generated. It ends before a stop string."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from gpt2.text_stream import unescape
from user_error import UserError

if TYPE_CHECKING:
    from encoder import Encoder


class StopText:
    """Passes on a text that arrives in pieces, until a stop string is complete.

    >>> stop = StopText(["END"])
    >>> [stop(piece) for piece in ["to be EN", "OUGH, E", "N", "D of it"]]
    ['to be ', 'ENOUGH, ', '', '']
    >>> stop.stopped
    True

    Attributes: stopped, whether a stop string was found; nothing is passed on after it.
    """

    def __init__(self, stop_strings: Sequence[str]):
        self.stop_strings = stop_strings
        self.stopped = False
        self._held = ""  # may be the beginning of a stop string

    def __call__(self, piece: str, final: bool = False) -> str:
        """The text that is certainly before any stop string; with `final`, all the rest."""
        if self.stopped:
            return ""
        text, self._held = self._held + piece, ""
        # The first to be complete, as that does not depend on the pieces; of these, the longest.
        ends = [(text.find(s) + len(s), -len(s)) for s in self.stop_strings if s in text]
        if ends:
            self.stopped = True
            return text[: sum(min(ends))]
        n_held = 0 if final else self._may_begin(text)
        self._held = text[len(text) - n_held :]
        return text[: len(text) - n_held]

    def _may_begin(self, text: str) -> int:
        """The length of the longest end of `text` that begins a stop string."""
        longest = max((len(s) - 1 for s in self.stop_strings), default=0)
        sizes = range(min(longest, len(text)), 0, -1)
        return next(
            (n for n in sizes if any(s.startswith(text[-n:]) for s in self.stop_strings)), 0
        )


class SampleText:
    """A sample while it is generated.

    Attributes:
      text: what certainly belongs to it.
      tokens: its ids; where a stop string cut it, the last may hold more than the text.
      stopped: whether a stop string was found; then no more tokens are needed.
    """

    def __init__(self, encoder: "Encoder", stop_strings: Sequence[str]):
        self.text = ""
        self.tokens: list[int] = []
        self._encoder, self._decode = encoder, encoder.stream()
        self._stop = StopText(stop_strings)

    @property
    def stopped(self) -> bool:
        return self._stop.stopped

    def add(self, ids: Sequence[int], final: bool = False) -> str:
        """Add tokens; with `final`, no more follow. Returns: the text that they add."""
        if self.stopped:
            return ""
        self.tokens += ids
        added = self._stop(self._decode(ids, final), final)
        self.text += added
        while self.stopped and self.tokens and self._is_enough(self.tokens[:-1]):
            del self.tokens[-1]
        return added

    def _is_enough(self, tokens: list[int]) -> bool:
        return self._encoder.decode(tokens).startswith(self.text)


def stop_strings(stop: object) -> Sequence[str]:
    """The texts that end a sample: one or several. Raises: UserError if one is empty."""
    texts = [stop] if isinstance(stop, str) else stop
    if not isinstance(texts, Sequence) or not all(isinstance(s, str) and s for s in texts):
        raise UserError(f"stop must be a text or a list of texts, none of them empty, got {stop!r}")
    return texts


def read_stop_strings(flags: Sequence[str]) -> tuple[str, ...]:
    r"""The values of --stop, with \n for a line end. Raises: UserError for an empty one."""
    return tuple(map(unescape, stop_strings(flags)))
