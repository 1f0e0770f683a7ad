"""Lines typed at the prompt: settings, what was meant as settings, and texts."""

import pytest

from gpt2.sampling.setting_line import parse_settings
from user_error import UserError


@pytest.mark.parametrize(
    ("line", "settings"),
    [
        ("temperature 0.7", {"temperature": 0.7}),
        ("/temperature 0.7", {"temperature": 0.7}),
        ("--top_k 40", {"top_k": 40}),
        ("top_k: 40", {"top_k": 40}),
        (" top_k = 40 ", {"top_k": 40}),
        ("seed=5", {"seed": 5}),
        ("length 1e2", {"length": 100}),
        ("/temperature 0.7 /top_k 40", {"temperature": 0.7, "top_k": 40}),
        ("temperature=0.7, top_k=40", {"temperature": 0.7, "top_k": 40}),
    ],
)
def test_settings_are_read_in_the_forms_that_people_type(line, settings):
    assert parse_settings(line) == settings


@pytest.mark.parametrize(
    "line",
    [
        "",
        "ROMEO:",
        "Chapter 1",
        "page 5",
        "temperature",
        "The temperature 0.7",
        "length is 5",
        "stop it",
        "device drivers",
        "/usr/bin/python is",
        "/",
        "--And then 5 of them came",
        "=5",
    ],
)
def test_texts_are_not_taken_for_settings(line):
    assert parse_settings(line) is None


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("temprature 0.7", "there is no setting 'temprature'; did you mean temperature?"),
        ("Temperature 0.7", "there is no setting 'Temperature'; did you mean temperature?"),
        ("temp 0.7", "there is no setting 'temp'; did you mean temperature?"),
        ("top-k 40", "there is no setting 'top-k'; did you mean top_k?"),
        ("topk=40", "there is no setting 'topk'; did you mean top_k?"),
        ("/temprature 0.7", "there is no setting 'temprature'; did you mean temperature?"),
        ("/colour red", "there is no setting 'colour'; the settings are length, temp"),
        ("seed 5 apples 6", "there is no setting 'apples'; the settings are"),
        ("batch_size 2", "batch_size cannot be changed here; start again with --batch_size"),
        ("/device cpu", "device cannot be changed here; start again with --device"),
        ("/temperature", "temperature needs a value; ? shows the settings"),
        ("top_k x", "top_k must be a whole number, got 'x' (to continue this text, type it "),
        ("top_k 1.5", "top_k must be a whole number, got 1.5"),
        (f"seed {2**63}", "seed must be from -2**63 to 2**63 - 1"),
        (f"top_k {2**31}", "top_k must be from -2**31 to 2**31 - 1"),
    ],
)
def test_what_looks_like_a_setting_and_is_none_is_explained(line, message):
    with pytest.raises(UserError) as caught:
        parse_settings(line)
    assert str(caught.value).startswith(message)
