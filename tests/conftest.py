"""What the tests share: where the reference data lies, and the order they run in."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from command_line import import_tensorflow

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"  # reference numbers of the original; a fresh clone has none


def shared(name: str) -> Path:
    """Path of a reference file; the test is skipped where it is absent."""
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"reference data is not here: {path}")
    return path


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.get_closest_marker("end_to_end") is not None)


@pytest.fixture(scope="session")
def tf() -> Any:
    """tensorflow.compat.v1, set up as the scripts set it up."""
    return import_tensorflow()


@pytest.fixture
def sess(tf: Any) -> Iterator[Any]:
    """A session with a graph of its own, which is the default graph of the test."""
    with tf.Graph().as_default(), tf.Session() as session:
        yield session
