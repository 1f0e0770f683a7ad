"""Settings typed at the prompt: `/temperature 0.7`, or `/top_k=40, top_p=0.9`."""

import re
from itertools import zip_longest
from typing import Any

from gpt2.typed_value import parse
from user_error import UserError

KINDS: dict[str, type] = {
    "length": int,
    "temperature": float,
    "top_k": int,
    "top_p": float,
    "nsamples": int,
    "seed": int,
}
LONE_SETTING = re.compile(rf"({'|'.join(KINDS)})[\s=:]+[\d.]+")  # a text, but perhaps not meant so


def parse_settings(line: str) -> dict[str, Any]:
    """The settings that a line changes. Names and values stand between spaces, `=`, `:` or commas.

    Raises: UserError if one of them is not a setting with its value.
    """
    words = re.split(r"[\s=:,]+", line.strip().rstrip("=:,"))
    names = [word.removeprefix("/") for word in words[::2]]
    return {name: _value(name, text) for name, text in zip_longest(names, words[1::2])}


def _value(name: str, text: str | None) -> Any:
    if name not in KINDS:
        raise UserError(
            f"there is no setting {name!r}, only {', '.join(KINDS)}; to continue a text that "
            'begins with /, type it between lines of """'
        )
    if text is None:
        raise UserError(f"{name} needs a value; ? shows the settings")
    return parse(name, text, KINDS[name])
