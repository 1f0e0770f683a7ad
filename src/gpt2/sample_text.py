"""The text of a sample while its tokens are generated. It ends before a stop string."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from gpt2.text_stream import unescape
from user_error import UserError

if TYPE_CHECKING:
    from encoder import Encoder


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
        self.stopped = False
        self._stop_strings = stop_strings
        self._encoder, self._decode = encoder, encoder.stream()
        self._held = ""  # may be the beginning of a stop string

    def add(self, ids: Sequence[int], final: bool = False) -> str:
        """Add tokens; with `final`, no more follow. Returns: the text that they add.

        With the stop string "END", the tokens of "to be EN", "OUGH, E", "N" and "D of it" add
        "to be ", "ENOUGH, ", "" and "".
        """
        if self.stopped:
            return ""
        self.tokens += ids
        text = self._held + self._decode(ids, final)
        # The first to be complete, as that does not depend on the pieces; of these, the longest.
        ends = [(text.find(s) + len(s), -len(s)) for s in self._stop_strings if s in text]
        self.stopped = bool(ends)
        cut = sum(min(ends)) if ends else len(text) - (0 if final else self._may_begin(text))
        added, self._held = text[:cut], text[cut:]
        self.text += added
        while self.stopped and self.tokens and self._is_enough(self.tokens[:-1]):
            del self.tokens[-1]
        return added

    def _may_begin(self, text: str) -> int:
        """The length of the longest end of `text` that begins a stop string."""
        sizes = (n for s in self._stop_strings for n in range(1, len(s)) if text.endswith(s[:n]))
        return max(sizes, default=0)

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
