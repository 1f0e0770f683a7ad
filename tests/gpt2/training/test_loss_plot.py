"""The picture of the loss curves: well-formed, complete, and drawn to scale."""

import math
import xml.etree.ElementTree as ET

import pytest

from gpt2.training.loss_plot import MAX_POINTS, loss_svg

SVG = "{http://www.w3.org/2000/svg}"
TRAINING = [(step, 4 - step / 100) for step in range(1, 101)]
VALIDATION = [(50, 3.8), (100, 3.2)]


def texts(svg):
    return [element.text for element in ET.fromstring(svg).iter(f"{SVG}text")]


def curve(svg, name):
    """The points of a curve, in pixels."""
    lines = ET.fromstring(svg).iter(f"{SVG}polyline")
    points = next(line.get("points") for line in lines if line.get("class") == name)
    return [tuple(map(float, point.split(","))) for point in points.split()]


def test_both_curves_are_drawn_to_scale_in_one_picture_with_labels():
    svg = loss_svg(TRAINING, VALIDATION)
    assert {"train step", "loss (nats per token)", "0", "100", "3", "4"} <= {*texts(svg)}
    assert {"training loss 3.000", "validation loss 3.200"} <= {*texts(svg)}
    training, validation = curve(svg, "training"), curve(svg, "validation")
    assert (len(training), len(validation)) == (100, 2)
    assert validation[1][0] == training[99][0] > validation[0][0] == training[49][0]
    falls = [y for _, y in training]
    assert falls == sorted(falls)  # SVG counts y from the top
    # Validation at step 100 equals the training loss of step 80.
    assert validation[1][1] == pytest.approx(training[79][1], abs=0.11)


@pytest.mark.parametrize(
    ("training", "validation"),
    [([], []), ([(1, 2.5)], []), ([(1, 0.0), (2, 0.0)], [(2, 0.0)]), ([(1, math.inf)], [])],
)
def test_few_flat_or_infinite_losses_still_give_a_picture(training, validation):
    svg = loss_svg(training, validation)
    assert "nan" not in svg
    assert "inf" not in svg
    assert "train step" in texts(svg)


def test_a_long_run_is_averaged():
    svg = loss_svg([(step, step % 2) for step in range(100_000)], [])
    assert len(curve(svg, "training")) <= MAX_POINTS
    assert len({y for _, y in curve(svg, "training")}) == 1
