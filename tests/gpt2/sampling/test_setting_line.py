"""Settings typed at the prompt, each after a slash."""

import pytest

from gpt2.sampling.setting_line import parse_settings
from user_error import UserError


@pytest.mark.parametrize(
    ("line", "settings"),
    [
        ("/temperature 0.7", {"temperature": 0.7}),
        ("/top_k: 40", {"top_k": 40}),
        ("/top_k = 40 ", {"top_k": 40}),
        ("/length 1e2", {"length": 100}),
        ("/temperature 0.7 /top_k 40", {"temperature": 0.7, "top_k": 40}),
        ("/temperature=0.7, top_k=40", {"temperature": 0.7, "top_k": 40}),
    ],
)
def test_settings_are_read_in_the_forms_that_people_type(line, settings):
    assert parse_settings(line) == settings


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("/temprature 0.7", "there is no setting 'temprature', only length, temperature, top_k, "),
        ("/usr/bin/python is", "there is no setting 'usr/bin/python', only length, "),
        ("/", "there is no setting '', only length, "),
        ("/seed 5 apples 6", "there is no setting 'apples', only length, "),
        ("/temperature", "temperature needs a value; ? shows the settings"),
        ("/top_k x", "top_k must be a whole number, got 'x'"),
        (f"/seed {2**63}", "seed must be from -2**63 to 2**63 - 1"),
    ],
)
def test_a_slash_before_anything_else_is_explained(line, message):
    with pytest.raises(UserError) as caught:
        parse_settings(line)
    assert str(caught.value).startswith(message)
