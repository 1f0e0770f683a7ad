"""Data sets as natural text, and back: one invertible pair of functions for each.

The tokenised text of data sets ("It 's easy , he said .") is unlike anything the model was trained
on. The paper scores natural text ("It's easy, he said.") and divides by the number of the original
tokens. Source: "Language Models are Unsupervised Multitask Learners" (Radford et al., 2019),
section 3.1; its authors did not publish their rules.

A pair consists of rules that split a chunk, which is a run of text without spaces, into tokens, and
of the tokens that attach to their neighbours. `detokenize` removes a space only if `tokenize` puts
it back. This holds for any rules:

    A line is restored exactly if each of its tokens, by itself, is restored,
    and if they are separated by single spaces.

So these are not restored:
  all          runs of spaces; a space at an end of a line where the format has none, or none where
               it has one
  WikiText     tokens that contain what the rules split off: `well-known` and `3.5` (the format
               writes `well @-@ known`, `3 @.@ 5`), `end.` unless it is an abbreviation, `Vol.2/3`
  PTB          `it's`, `$5`, `don't` as one token
  CBT and      `it's`, `don't`, `end,` as one token; a straight double or single quote, a round
  LAMBADA      bracket (the format writes `` '' ` -LRB- -RRB-)
  1BW          `it's`, `(a`, `end,` as one token
  LAMBADA, as JSON Lines   curly quotes and outer white space: see natural_lambada
  enwik8, text8   everything is restored: they are natural text
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Detokenizer:
    """A pair of functions, each the inverse of the other."""

    # Finds the tokens of a chunk in order. What a named group matches becomes a token of
    # `group_tokens`.
    rules: re.Pattern[str]
    closing: re.Pattern[str]  # tokens that attach to what is before them
    opening: re.Pattern[str]  # tokens that attach to what follows them
    group_tokens: dict[str, str] = field(default_factory=dict)
    spelling: dict[str, str] = field(default_factory=dict)  # token -> how natural text has it
    joining: frozenset[str] = frozenset()  # tokens that attach on both sides
    frame: str = ""  # what the format puts at both ends of a line that is not blank
    blank: str = ""  # a blank line of the format

    def tokenize(self, text: str) -> str:
        """A line of natural text in the format of the data set; line ends are kept."""
        line = text.rstrip("\n")
        tokens = [token for chunk in line.split(" ") for token in self.split(chunk)]
        body = f"{self.frame}{' '.join(tokens)}{self.frame}" if tokens else self.blank
        return body + text[len(line) :]

    def detokenize(self, text: str) -> str:
        """A line of the data set as natural text; line ends are kept."""
        line = text.rstrip("\n")
        chunks = [""]
        for unit, attaches in self._units([token for token in line.split(" ") if token]):
            surface = "".join(self.spelling.get(token, token) for token in unit)
            tokens = [token for literal in unit for token in self.split(literal)]
            last = chunks[-1]
            if attaches and last and self.split(last + surface) == self.split(last) + tokens:
                chunks[-1] += surface
            elif self.split(surface) == tokens:
                chunks.append(surface)
            else:
                chunks += unit
        return " ".join(chunks[1:]) + text[len(line) :]

    def split(self, chunk: str) -> list[str]:
        """The tokens of a run of natural text without spaces."""
        found = self.rules.finditer(chunk)
        return [self.group_tokens.get(match.lastgroup or "", match[0]) for match in found]

    def _units(self, tokens: list[str]) -> Iterator[tuple[list[str], bool]]:
        """Tokens with those attached to them, and whether they attach to the unit before."""
        unit: list[str] = []
        attaches = quoted = False
        for token in tokens:
            if token == '"':
                quoted = not quoted
            joins = token in self.joining
            opens = joins or bool(self.opening.fullmatch(token)) or (token == '"' and quoted)
            closes = bool(self.closing.fullmatch(token)) or (token == '"' and not quoted)
            if not unit:
                attaches = joins or closes
            unit.append(token)
            if not opens:
                yield unit, attaches
                unit = []
        if unit:
            yield unit, attaches


LETTER = r"[^\W\d_]"
# The full stop belongs to the word: "U.S.", "e.g.", a single capital, and these.
ABBREVIATION = (
    rf"(?:{LETTER}\.)+{LETTER}\.|(?<!\w)[A-Z]\.|"
    r"(?<!\w)(?:[Mm]rs?|[Mm]s|[Dd]rs?|[Ss]t|[Pp]rof|[Ss]r|[Jj]r|[Cc]o|[Cc]orp|[Ii]nc|[Ll]td|No|[Vv]ol"
    r"|Gen|Col|Capt|Lt|Sgt|Maj|Gov|Sen|Rep|Rev|Hon|Messrs|Jan|Feb|Aug|Sept?|Oct|Nov|Dec|[Vv]s|[Ee]tc"
    r"|Mt|Ft|Ave|Bros)\."
)
PUNCTUATION = r"[,.;:!?)\]}%]|\.\.+"
BRACKET = r"[(\[{]"

# As the Moses tokenizer splits English, with hyphens split too and marked.
WIKITEXT = Detokenizer(
    rules=re.compile(
        rf"@[-,.]@|<unk>|(?P<hyphen>(?<=\w)-(?=\w))|(?P<comma>(?<=\d),(?=\d))"
        rf"|(?P<point>(?<=\d)\.(?=\d))|'{LETTER}+|{ABBREVIATION}|\w+(?:\.{LETTER}\w*)*"
        r"|\.\.+|--+|."
    ),
    group_tokens={"hyphen": "@-@", "comma": "@,@", "point": "@.@"},
    spelling={"@-@": "-", "@,@": ",", "@.@": "."},
    joining=frozenset(["@-@", "@,@", "@.@", "/"]),
    closing=re.compile(rf"{PUNCTUATION}|'|'(?:s|S|t|re|ve|m|ll|d)|[°\u2032\u2033]"),
    opening=re.compile(rf"{BRACKET}|[$£€]"),
    frame=" ",
    blank=" ",
)

# The Penn Treebank of language modelling: lower case, N for numbers, hardly any punctuation.
PTB_CLITIC = r"n't$|'(?:s|m|re|ve|ll|d)$|'$"
PTB = Detokenizer(
    rules=re.compile(rf"^[$#](?=.)|{PTB_CLITIC}|.+?(?={PTB_CLITIC}|$)"),
    closing=re.compile(r"n't|'(?:s|m|re|ve|ll|d)|'"),
    opening=re.compile(r"[$#]"),
    frame=" ",
    blank=" ",
)

# As Stanford CoreNLP writes books, in the manner of the Penn Treebank but with its punctuation.
CLITIC = r"(?:[Nn]'[Tt]|'(?:[Ss]|[Mm]|[Rr][Ee]|[Vv][Ee]|[Ll][Ll]|[Dd]))(?!\w)"
APOSTROPHE_WORD = r"(?<!\w)'(?:em|tis|twas|til|cause|Tis|Twas|Twill|twill|bout|n)(?!\w)"
START = r"(?:(?<=^)|(?<=[(\"'`]))"  # of a chunk, brackets and quotes not counted
BOOK = Detokenizer(
    rules=re.compile(
        rf"-[LR]RB-|``|''|(?P<open_double>{START}\"(?=.|$))|(?P<close_double>\")"
        rf"|(?P<open_round>\()|(?P<close_round>\))|{CLITIC}|{APOSTROPHE_WORD}"
        rf"|(?P<open_single>{START}'(?=\w))|{ABBREVIATION}"
        rf"|(?:(?!{CLITIC})\w)+(?:(?:-|[.,](?=\d)|(?!{CLITIC})')(?:(?!{CLITIC})\w)+)*|\.\.+|--+|."
    ),
    group_tokens={
        "open_double": "``",
        "close_double": "''",
        "open_single": "`",
        "open_round": "-LRB-",
        "close_round": "-RRB-",
    },
    spelling={"``": '"', "''": '"', "`": "'", "-LRB-": "(", "-RRB-": ")"},
    closing=re.compile(rf"{PUNCTUATION}|-RRB-|''|'|{CLITIC}"),
    opening=re.compile(r"``|`|-LRB-|[$£\[]"),
)

# Like WikiText, but hyphens and the marks inside numbers are unchanged.
ONE_BILLION_WORDS = Detokenizer(
    rules=re.compile(
        rf"'{LETTER}+|{ABBREVIATION}|\w+(?:(?:-|\.(?={LETTER})|(?<=\d)[.,:](?=\d))\w+)*|\.\.+|--+|."
    ),
    closing=re.compile(rf"{PUNCTUATION}|'|'(?:s|S|t|re|ve|m|ll|d)"),
    opening=re.compile(rf"{BRACKET}|[$£€]"),
    joining=frozenset(["/"]),
)


def natural_lambada(text: str) -> str:
    """A LAMBADA passage as the paper's authors fed it to the model, as one of them remembered it.

    Not invertible: it loses which quotes were curly, and white space at the ends.
    Source: openai/gpt-2 issue 131.
    """
    return "\n" + text.replace("“", '"').replace("”", '"').strip()
