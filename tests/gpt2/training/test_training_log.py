"""The log of a run, when the run is resumed."""

import pytest

from gpt2.training.training_log import read_log, write_log
from user_error import UserError

ROWS = [
    {"step": 1, "training_loss": 3.5, "learning_rate": 0.1, "tokens_per_second": 50.0},
    {"step": 2, "training_loss": 3.25, "learning_rate": 0.1, "validation_loss": 3.5},
    {"step": 3, "training_loss": 3.0, "learning_rate": 0.1},
]


def test_a_log_has_the_rows_up_to_the_checkpoint_and_a_picture_of_all(tmp_path):
    assert read_log(tmp_path, 9) == []
    write_log(tmp_path, ROWS)
    assert read_log(tmp_path, 2) == ROWS[:2]
    svg = (tmp_path / "loss.svg").read_text(encoding="utf-8")
    assert "training loss 3.000" in svg
    assert "validation loss 3.500" in svg


def test_a_foreign_log_is_refused(tmp_path):
    (tmp_path / "log.csv").write_text("step,loss\nx,3.5\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"log.csv is not the log of a training run"):
        read_log(tmp_path, 1)
