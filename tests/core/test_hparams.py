"""Hyperparameters: only what is the shape of a model passes."""

import json

import pytest

from hparams import HParams
from sampling_settings import Sampling
from user_error import UserError


def test_override_from_dict_sets_fields_and_returns_self():
    hparams = HParams()
    assert hparams.override_from_dict({"n_layer": 3, "n_head": 4}) is hparams
    assert (hparams.n_layer, hparams.n_head, hparams.n_embd) == (3, 4, 768)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"n_layers": 3}, "unknown hyperparameter 'n_layers'; known are n_vocab, n_ctx"),
        ({"n_layer": 0}, "n_layer must be a whole number of at least 1, got 0"),
        ({"n_layer": "3"}, "n_layer must be a whole number of at least 1, got '3'"),
        ({"n_layer": True}, "n_layer must be a whole number of at least 1, got True"),
        ({"n_head": 7}, "n_head must divide n_embd, got 7 and 768"),
    ],
)
def test_override_from_dict_refuses_and_changes_nothing(values, message):
    hparams = HParams()
    with pytest.raises(UserError, match=message):
        hparams.override_from_dict({"n_ctx": 5} | values)
    assert hparams == HParams()


def test_context_and_sample_share_n_ctx():
    hparams = HParams(n_ctx=10)
    Sampling(length=10).check_context(1, hparams)  # the last token drawn is never fed back
    Sampling(length=1).check_context(10, hparams)
    with pytest.raises(UserError, match="its 7 tokens leave room for 4 of n_ctx = 10, and length"):
        Sampling(length=5).check_context(7, hparams)
    with pytest.raises(UserError, match="leave room for 0 of"):
        Sampling(length=5).check_context(70, hparams)
    with pytest.raises(UserError, match="the prompt is empty"):
        Sampling(length=5).check_context(0, hparams)


def test_hparams_answer_as_those_of_the_original_did():
    hparams = HParams()
    assert "n_ctx" in hparams
    assert "n_context" not in hparams
    assert hparams.get("n_head") == hparams.values()["n_head"] == 12
    assert hparams.get("n_context", 5) == 5
    assert hparams.parse("n_ctx=64, n_layer=2") is hparams
    hparams.set_hparam("n_head", 6)
    assert HParams(**json.loads(hparams.to_json(indent=2))) == hparams
    assert (hparams.n_ctx, hparams.n_layer, hparams.n_head) == (64, 2, 6)
    for text in ("n_ctx=a", "n_ctx", "n_contexts=3", "n_head=7"):
        with pytest.raises(UserError):
            hparams.parse(text)
