"""Flags and Python arguments have their types, or one message."""

import math

import numpy as np
import pytest

from gpt2.typed_value import typed_value
from user_error import UserError


@pytest.mark.parametrize(
    ("kind", "value", "plain"),
    [
        (int, 5, 5),
        (int, 40.0, 40),
        (int, np.uint64(7), 7),
        (int, np.float32(1e5), 100_000),
        (float, 1, 1),
        (float, 0.7, 0.7),
        (float, np.float32(0.5), 0.5),
        (float, np.int8(2), 2.0),
        (float, math.inf, math.inf),
        (bool, True, True),
        (str, "5", "5"),
    ],
)
def test_values_of_a_kind_become_plain_python(kind, value, plain):
    found = typed_value("x", value, kind)
    assert (found, type(found)) == (plain, type(plain))


@pytest.mark.parametrize(
    ("kind", "value", "message"),
    [
        (int, 1.5, "x must be a whole number, got 1.5"),
        (int, True, "x must be a whole number, got True"),
        (int, math.nan, "x must be a whole number, got nan"),
        (int, "5", "x must be a whole number, got '5'"),
        (int, None, "x must be a whole number, got None"),
        (int, 2**31, r"x must be from -2\*\*31 to 2\*\*31 - 1, got 2147483648"),
        (float, "0.7", "x must be a number, got '0.7'"),
        (float, 1j, "x must be a number, got 1j"),
        (float, 10**400, "x must be a number, got 1000"),
        (bool, "no", "x must be True or False, got 'no'"),
        (bool, 0, "x must be True or False, got 0"),
        (str, b"1M", "x must be text, got b'1M'"),
    ],
)
def test_other_values_are_refused(kind, value, message):
    with pytest.raises(UserError, match=message):
        typed_value("x", value, kind)


def test_only_a_seed_may_have_63_bits():
    assert typed_value("seed", np.uint64(2**63 - 1), int) == 2**63 - 1
    with pytest.raises(UserError, match=r"seed must be from -2\*\*63 to 2\*\*63 - 1, got 922337"):
        typed_value("--seed", np.uint64(2**63), int)
