"""The encoder against ids by the original encoder."""

import json

import pytest
from conftest import shared

from encoder import get_encoder


@pytest.fixture(scope="module")
def gpt2():
    return get_encoder("gpt2", models_dir=shared("gpt2").parent)


def test_encode_equals_the_original_on_golden_lines(gpt2):
    lines = shared("golden/encoder_golden.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 300
    for line in map(json.loads, lines):
        assert gpt2.encode(line["text"]) == line["ids"]
        assert gpt2.decode(line["ids"]) == line["text"]
