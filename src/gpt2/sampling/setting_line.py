"""Settings typed at the prompt: `temperature 0.7`, `/top_k 40`, `top_k=40, top_p=0.9`."""

import contextlib
import difflib
import re
from itertools import zip_longest
from typing import Any

from gpt2.typed_value import parser
from user_error import UserError

KINDS: dict[str, type] = {
    "length": int,
    "temperature": float,
    "top_k": int,
    "top_p": float,
    "nsamples": int,
    "seed": int,
}
FIXED = "batch_size", "device", "dtype", "model_name", "models_dir", "stop", "stop_at_end"
TO_CONTINUE_IT = 'to continue this text, type it between lines of """'


def parse_settings(line: str) -> dict[str, Any] | None:
    """The settings that a line changes; None if it is a text to continue.

    Names and values are separated by spaces, `=`, `:` or commas. A `/` before the first name says
    that the line is not a text.
    Raises: UserError for a line that was probably meant as a setting but is not one.
    """
    words = re.split(r"[\s=:,]+", line.strip().rstrip("=:,"))
    marked = re.fullmatch(r"/[\w-]+", words[0]) is not None
    names, values = [word.lstrip("/-") for word in words[::2]], words[1::2]
    in_numbers = len(names) == len(values) and all(map(_is_number, values))
    # Not each of FIXED: "stop it" and "device drivers" are texts.
    known = names[0] in KINDS or (names[0] in FIXED and "_" in names[0])
    if not (marked or (known and len(words) == 2) or (in_numbers and _closest(names[0]))):
        return None
    return {name: _value(name, text) for name, text in zip_longest(names, values)}


def _value(name: str, text: str | None) -> Any:
    if name in FIXED:
        raise UserError(f"{name} cannot be changed here; start again with --{name}")
    if name not in KINDS:
        close = _closest(name)
        hint = f"did you mean {close}?" if close else f"the settings are {', '.join(KINDS)}"
        raise UserError(f"there is no setting {name!r}; {hint} ({TO_CONTINUE_IT})")
    if text is None:
        raise UserError(f"{name} needs a value; ? shows the settings")
    try:
        return parser(name, KINDS[name])(text)
    except UserError as error:
        raise UserError(f"{error} ({TO_CONTINUE_IT})") from None


def _closest(name: str) -> str:
    """The setting that a misspelt or shortened name stands for; empty if there is none."""
    name = name.lower().replace("-", "_")
    longer = [setting for setting in KINDS if len(name) > 3 and setting.startswith(name)]
    return ([*longer, *difflib.get_close_matches(name, [*KINDS, *FIXED], 1, 0.8)] or [""])[0]


def _is_number(text: str) -> bool:
    with contextlib.suppress(ValueError):
        float(text)
        return True
    return False
