"""The encoder's fast path: the same ids as `Encoder.encode_simply`, in much less time.

It has four ideas, and each is exact for every text:

1. The standard library's `re` splits twice as fast as `regex`, if the letters are listed for it.
2. Text repeats itself, so the ids of a piece are computed once and then looked up. They are stored
   as bytes: the ids of a text take one join and one conversion to integers.
3. Most pieces are tokens. `stable_symbols` finds in advance which tokens result from merging their
   own bytes; these need no merging.
4. Merging stores the result of each adjacent pair, and updates only the two pairs next to a merge.
   In a long word, the next pair comes from a heap, so the time grows as n log n.
"""

import functools
import heapq
import itertools
import operator
import re
from array import array
from collections.abc import Mapping, Sequence

import numpy as np
import regex

CHUNK = 1 << 12  # characters split at a time; few chunks then need the slower splitter
ROOM = 1 << 17  # maximum number of pieces remembered: about 20 MB
LONGEST_KEPT = 64  # characters; a longer piece is unlikely to be repeated
LONGEST_LIST = 128  # bytes; a longer word is merged with a heap

_FIRST_OF_THREE = bytes(range(0xE0, 0xF0))  # first bytes of the characters of three bytes
_NOTHING = 1 << 30  # the result of a pair that is not a merge: above every symbol


def _ranges(unicode_class: str) -> str:
    """The characters of `unicode_class` below U+10000, as ranges in the syntax of `re`."""
    below = "".join(map(chr, range(0x10000)))
    runs = (match.span() for match in regex.finditer(unicode_class + "+", below))
    return "".join(f"\\u{start:04x}-\\u{end - 1:04x}" for start, end in runs)


@functools.cache  # not at import, because listing the letters takes 40 ms
def _splitter() -> re.Pattern[str]:
    """`encoder.PATTERN` for text whose letters and numbers are below U+10000.

    `re` has no \\p{L}, and treats the control characters U+001C to U+001F as white space, so the
    classes are written out (not above U+10000: that would be four times slower). The most frequent
    alternatives come first. The order does not matter: no two of those that were moved match at the
    same position.
    """
    letter, number, space = _ranges(r"\p{L}"), _ranges(r"\p{N}"), _ranges(r"\s")
    return re.compile(
        f" [{letter}]+|[{letter}]+|'(?:s|t|re|ve|m|ll|d)| ?[^{space}{letter}{number}]+"
        f"| ?[{number}]+|[{space}]+(?![^{space}])|[{space}]+"
    )


_BORDER = re.compile(r"\S(?=[ \n])")  # no piece crosses it, in any surroundings
_ABOVE = re.compile("[\U00010000-\U0010ffff]")
_LETTER_OR_NUMBER = regex.compile(r"[\p{L}\p{N}]")


class IrregularVocabulary(ValueError):
    """BPE training cannot produce this vocabulary, so the fast path might give different ids."""


class PieceTable(dict[str, bytes]):
    """Piece of text -> its ids, packed as uint32; filled on demand.

    Symbols are numbers: 0 to 255 are the bytes, and 256 + i is the result of merge i. So the lower
    of two symbols is made first.

    Args:
      pattern: matches one piece.
      byte_encoder: printable character of each byte, as in `encoder.bytes_to_unicode`.
      encoder: token in printable characters -> id.
      merges: pairs of tokens to join, the most frequent first.
      room: how many pieces to remember; beyond that, all are dropped.
    Raises: IrregularVocabulary unless each merge makes a new token from two earlier ones, and every
      byte and every merge has an id. Otherwise a merge could create a pair with a lower rank than
      its own, and joining one pair at a time would differ from `Encoder.bpe`.
    """

    def __init__(
        self,
        pattern: regex.Pattern[str],
        byte_encoder: Mapping[int, str],
        encoder: Mapping[str, int],
        merges: Sequence[tuple[str, str]],
        room: int = ROOM,
    ):
        self.pattern = pattern
        names = [byte_encoder[byte] for byte in range(256)] + [a + b for a, b in merges]
        n = len(names)
        symbols = dict(zip(names, range(n), strict=True))
        left = [symbols.get(a, n) for a, _ in merges]  # n if it is not a token
        right = [symbols.get(b, n) for _, b in merges]
        made = range(256, n)
        if len(symbols) < n or any(map(operator.ge, map(max, left, right), made)):
            raise IrregularVocabulary("a merge does not make a new token from two earlier ones")
        ids = [encoder.get(name, -1) for name in names]
        if min(ids) < 0:
            raise IrregularVocabulary("a byte or a merge has no id")

        self.merges = dict(zip(zip(left, right, strict=True), made, strict=True))
        packed = np.array(ids, np.uint32).tobytes()
        self.packed = [packed[i : i + 4] for i in range(0, len(packed), 4)]
        tokens = [bytes([byte]) for byte in range(256)]
        for a, b in zip(left, right, strict=True):
            tokens.append(tokens[a] + tokens[b])
        self.neighbours = _neighbours(tokens)
        spelled = zip(tokens, self.packed, strict=True)
        self.stable = dict(itertools.compress(spelled, stable_symbols(left, right).tolist()))
        self.room = room

    def encode(self, text: str) -> list[int]:
        """The ids of `text`. Raises: UnicodeEncodeError for a lone surrogate."""
        ids = []
        start = 0
        while start < len(text):
            border = _BORDER.search(text, start + CHUNK)
            end = border.end() if border else len(text)
            ids.append(b"".join(map(self.__getitem__, self._split(text[start:end]))))
            start = end
        return np.frombuffer(b"".join(ids), np.uint32).tolist()

    def _split(self, text: str) -> list[str]:
        """The pieces of `text`, in order."""
        # A character above U+FFFF takes two units of UTF-16; counting them is the fastest test.
        above = not text.isascii() and len(text.encode("utf-16-le")) > 2 * len(text)
        if above and _LETTER_OR_NUMBER.search("".join(_ABOVE.findall(text))):
            return self.pattern.findall(text)
        return _splitter().findall(text)

    def __missing__(self, piece: str) -> bytes:
        if len(self) >= self.room:
            self.clear()
        parts = self._cut(piece)
        whole = len(parts) == 1
        ids = self._merge(piece) if whole else b"".join(map(self.__getitem__, parts))
        if len(piece) <= LONGEST_KEPT:
            self[piece] = ids
        return ids

    def _cut(self, piece: str) -> Sequence[str]:
        """The parts of a piece that no merge joins; in Chinese, most parts are single characters.

        A token that crosses a border contains the bytes on both sides of it.
        """
        data = piece.encode("utf-8")
        if data[::3].translate(None, _FIRST_OF_THREE):
            return [piece]  # not every character has three bytes
        last, first = data[2::3], data[3::3]  # the bytes on both sides of each border
        if self.neighbours.isdisjoint(zip(last, first, strict=False)):
            return piece
        borders = enumerate(zip(last, first, strict=False), 1)
        cuts = [i for i, border in borders if border not in self.neighbours]
        return [piece[start:end] for start, end in itertools.pairwise([0, *cuts, len(piece)])]

    def _merge(self, piece: str) -> bytes:
        """The ids of a piece, merged by rank."""
        data = piece.encode("utf-8")
        if data in self.stable:
            return self.stable[data]
        merge = _merge_in_list if len(data) < LONGEST_LIST else _merge_with_heap
        return b"".join([self.packed[symbol] for symbol in merge(list(data), self.merges)])


def _merge_in_list(word: list[int], merges: dict[tuple[int, int], int]) -> list[int]:
    """Merge `word` in place, searching all pairs before each merge."""
    makes = [merges.get(pair, _NOTHING) for pair in itertools.pairwise(word)]
    while makes and (symbol := min(makes)) < _NOTHING:
        i = makes.index(symbol)
        word[i] = symbol
        del word[i + 1], makes[i]
        if i > 0:
            makes[i - 1] = merges.get((word[i - 1], symbol), _NOTHING)
        if i < len(makes):
            makes[i] = merges.get((symbol, word[i + 1]), _NOTHING)
    return word


def _merge_with_heap(word: list[int], merges: dict[tuple[int, int], int]) -> list[int]:
    """Merge `word` in n log n steps.

    Symbols stay at the position of their first byte, linked to their neighbours. Every pair that is
    a merge waits as symbol << 32 | position: pairs of bytes in a sorted list, which makes better
    use of the processor's cache, and pairs that appear later in a heap. A pair is outdated if the
    symbols at its position no longer make that symbol.
    """
    n = len(word)
    makes = np.array([merges.get(pair, _NOTHING) for pair in itertools.pairwise(word)], np.int64)
    places = np.flatnonzero(makes < _NOTHING)
    last = _NOTHING << 32
    waiting = [last, *np.sort(makes[places] << 32 | places)[::-1].tolist()]
    heap: list[int] = []
    before, after = array("q", range(-1, n)), array("q", [*range(1, n + 1), n])
    word.append(-1)  # no symbol: it comes after the last one and, as word[-1], before the first
    while True:
        new = heap and heap[0] < waiting[-1]
        entry = heapq.heappop(heap) if new else waiting.pop()
        if entry == last:
            break
        symbol, place = divmod(entry, 1 << 32)
        second = after[place]
        if merges.get((word[place], word[second])) != symbol:
            continue
        word[place], word[second] = symbol, -1
        after[place] = after[second]
        before[after[place]] = place
        for first in (before[place], place):
            symbol = merges.get((word[first], word[after[first]]), _NOTHING)
            if symbol < _NOTHING:
                heapq.heappush(heap, symbol << 32 | first)
    return [symbol for symbol in word if symbol >= 0]


def _neighbours(tokens: list[bytes]) -> set[tuple[int, int]]:
    """The pairs of adjacent bytes inside tokens; no merge joins any others."""
    data = np.frombuffer(b"".join(tokens), np.uint8).astype(np.uint16)
    pairs = data[:-1] << 8 | data[1:]
    inside = np.ones(len(data), bool)
    inside[np.cumsum([len(token) for token in tokens]) - 1] = False  # before the next token
    seen = np.zeros(1 << 16, bool)
    seen[pairs[inside[:-1]]] = True
    return {divmod(pair, 256) for pair in np.flatnonzero(seen).tolist()}


def stable_symbols(lefts: Sequence[int], rights: Sequence[int]) -> np.ndarray:
    """Which symbols result from merging their own bytes.

    While the bytes of a symbol are merged, its left and right parts are merged as each would be
    alone, unless a merge crosses the border between them. To find out, both parts are split again,
    the last merge first. If m is the symbol that was just split, the two symbols now at the border
    were there until m was made; they merge if they make a symbol below m.

    For example, with the merges b+c, a+b, ab+c in this order, the symbol abc has the parts ab and
    c. Splitting ab, which the second merge made, leaves b and c at the border. They were there
    until then, but b+c is earlier in the list. So merging "abc" gives a, bc, and abc is not stable.

    Args:
      lefts, rights: the symbols that each merge joins; merge i makes 256 + i.
    Returns: bool [256 + n_merges]; False also in doubtful cases (two adjacent equal merges).
    """
    n = 256 + len(lefts)
    left = np.array([*range(256), *lefts], np.int64)
    right = np.array([*range(256), *rights], np.int64)
    pairs = left[256:] * n + right[256:]
    order = np.argsort(pairs)
    pairs = np.append(pairs[order], -1)

    stable = np.ones(n, bool)
    whole, x, y = np.arange(n), left, right
    while True:
        unfinished = np.maximum(x, y) >= 256
        whole, x, y = whole[unfinished], x[unfinished], y[unfinished]
        if not len(whole):
            break
        m = np.maximum(x, y)
        x, y = np.where(x > y, right[x], x), np.where(x > y, y, left[y])
        place = np.searchsorted(pairs[:-1], x * n + y)
        found = np.flatnonzero(pairs[place] == x * n + y)
        reaches_over = found[256 + order[place[found]] <= m[found]]
        stable[whole[reaches_over]] = False
    while (broken := stable & ~(stable[left] & stable[right])).any():
        stable &= ~broken  # one of its parts does not result
    return stable
