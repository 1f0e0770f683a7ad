"""The types of flags and of Python arguments, checked in one place."""

import contextlib
import reprlib
import typing
from numbers import Real
from typing import Any

from user_error import UserError

TYPE_NAMES: dict[type, str] = {
    int: "a whole number",
    float: "a number",
    bool: "True or False",
    str: "text",
}


def typed_value(name: str, value: object, kind: Any) -> Any:
    """The value as a plain int, float, bool or str, or None where `kind` allows it.

    >>> typed_value("length", 40.0, int), typed_value("top_p", 1, float)
    (40, 1)

    Args:
      name: of the flag or argument, for the error.
      kind: int, float, bool or str; `int | None` and so on also allow None. NumPy's numbers are
        accepted where they are exact. A bool is not a number, and a text is never read as one.
    Raises: UserError if the value is of another kind, or a whole number that TensorFlow cannot
      hold: one of more than 63 bits for a seed, and of more than 31 bits for all others.
    """
    kind, *nothing = typing.get_args(kind) or (kind,)
    if value is None and nothing:
        return None
    plain = _convert(value, kind)
    if plain is None:
        raise UserError(f"{name} must be {TYPE_NAMES[kind]}, got {reprlib.repr(value)}")
    bits = 63 if name.lstrip("-") == "seed" else 31
    if kind is int and not -(1 << bits) <= plain < 1 << bits:
        raise UserError(f"{name} must be from -2**{bits} to 2**{bits} - 1, got {value}")
    return plain


def _convert(value: Any, kind: type) -> Any:
    """The value as `kind`, or None if that is not possible."""
    if kind in (bool, str):
        return value if isinstance(value, kind) else None
    if not isinstance(value, Real) or isinstance(value, bool):
        return None
    try:
        plain = kind(value)
    except (OverflowError, ValueError):  # infinity, or nan, as a whole number
        return None
    if kind is int and plain != value:
        return None
    return value if type(value) is int else plain


def parse(label: str, text: str, annotation: Any) -> Any:
    """The value of the annotated type that a text stands for. Raises: UserError."""
    kind, *nothing = typing.get_args(annotation) or (annotation,)
    if nothing and text == "None":
        return None
    value: Any = text
    if kind is not str:
        with contextlib.suppress(ValueError):
            value = float(text)  # a whole number may also be written as 1e5 or 40.0
            if kind is int:
                value = int(text)
    return typed_value(label, value, kind)
