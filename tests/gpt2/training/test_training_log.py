"""The log of a run, when the run is resumed."""

import contextlib

import pytest

from user_error import UserError

HEAD = "step,loss,rate,tokens_per_second,held_out_loss\n"  # as the first version wrote it


def resume(tf, folder, text, step):
    from gpt2.training.training_log import TrainingLog

    (folder / "log.csv").write_text(text, encoding="utf-8")
    with tf.Graph().as_default(), contextlib.closing(TrainingLog(folder, step)) as log:
        log.draw()
    return (folder / "log.csv").read_text(encoding="utf-8").splitlines()[1:]


def test_rows_after_the_checkpoint_and_an_incomplete_one_are_dropped(tf, tmp_path):
    rows = ["1,3.5,0.1,50.0,", "2,3.25,0.1,50.0,3.5", "3,3.0,0.1,50.0,"]
    assert resume(tf, tmp_path, HEAD + "\n".join(rows) + "\n4,2.7", 2) == rows[:2]
    svg = (tmp_path / "loss.svg").read_text(encoding="utf-8")
    assert "training loss 3.250" in svg
    assert "validation loss 3.500" in svg
    assert not list(tmp_path.glob("*.new"))


@pytest.mark.parametrize("row", ["a,b", "x,3.5,0.1,50.0,", ""])
def test_a_foreign_log_is_refused_and_left_as_it_is(tf, tmp_path, row):
    text = f"{HEAD}{row}\n"
    with pytest.raises(UserError, match=r"log.csv is not the log of a training run"):
        resume(tf, tmp_path, text, 1)
    assert (tmp_path / "log.csv").read_text(encoding="utf-8") == text
