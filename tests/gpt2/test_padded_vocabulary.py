"""Rows of the embedding that are not tokens, as other trainers add them, are never drawn."""

import shutil
from itertools import chain

import model_weights
import pytest
from conftest import ROOT

import model
from gpt2.language_model import LanguageModel
from gpt2.scorer import Scorer
from hparams import HParams


@pytest.fixture(scope="module")
def folder(tf, tmp_path_factory):
    """A model whose embedding has 24 rows without a token, as likely as can be."""
    folder = tmp_path_factory.mktemp("models") / "padded"
    folder.mkdir()
    for name in ("encoder.json", "vocab.bpe"):
        shutil.copyfile(ROOT / "models" / "1M" / name, folder / name)
    hparams = HParams(n_vocab=1304, n_ctx=32, n_embd=12, n_head=3, n_layer=1)
    weights = model_weights.random_weights(hparams)
    weights["model/ln_f/b"][:] = 1
    weights["model/wte"][1280:] = 100
    with tf.Graph().as_default(), tf.Session() as session:
        model.model(hparams, tf.placeholder(tf.int32, [None, None]))
        model_weights.assign(tf, session, weights)
        tf.train.Saver().save(session, str(folder / "model.ckpt"), write_meta_graph=False)
    return folder


def load(folder, n_vocab):
    """The model with this n_vocab in hparams.json. For 16 samples, nothing is compiled."""
    hparams = HParams(n_vocab=n_vocab, n_ctx=32, n_embd=12, n_head=3, n_layer=1)
    (folder / "hparams.json").write_text(hparams.to_json(), encoding="utf-8")
    names = {"model_name": folder.name, "models_dir": str(folder.parent)}
    return LanguageModel(**names, device="cpu", seed=1, batch_size=16, length=31)


def samples(lm):
    pieces = lm.stream_tokens([[lm.end_of_text]] * 2, [1, 2])
    return [list(chain(*parts)) for parts in zip(*pieces, strict=True)]


def test_rows_without_a_token_are_never_drawn(folder):
    lm = load(folder, n_vocab=1304)
    drawn = samples(lm)
    assert [len(row) for row in drawn] == [31, 31]
    assert len({*drawn[0]}) > 5
    lm.change(top_k=1290)
    widest = samples(lm)
    lm.change(temperature=0)
    likeliest = samples(lm)
    assert max(map(max, [*drawn, *widest, *likeliest])) < 1280
    # hparams.json may leave the padding out.
    assert samples(load(folder, n_vocab=1280)) == drawn


def test_rows_without_a_token_are_no_words(folder):
    kept = Scorer(load(folder, n_vocab=1304).session).allowed_tokens({"the"})
    assert kept.shape == (1304,)
    assert kept.sum() == 1303
