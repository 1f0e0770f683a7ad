"""The examples in the docstrings of the core, with eager execution as in a notebook."""

import doctest

import pytest

import encoder
import model
import sample


@pytest.mark.parametrize("module", [encoder, model, sample])
def test_the_examples_in_docstrings_hold(tf, module):
    result = doctest.testmod(module)
    assert result.attempted and not result.failed
