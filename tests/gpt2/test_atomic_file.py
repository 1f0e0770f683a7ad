"""A file that is replaced is never half there, and nothing else is written."""

import os

import pytest

from gpt2.atomic_file import replacing


def test_an_error_on_the_way_leaves_the_file_as_it_was(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"before")
    with pytest.raises(ZeroDivisionError), replacing(path) as file:
        file.write(b"half")
        raise ZeroDivisionError
    assert path.read_bytes() == b"before"
    assert [*tmp_path.iterdir()] == [path]


@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_a_link_or_pipe_under_the_temporary_name_is_not_written_through(tmp_path, kind):
    path, new, theirs = tmp_path / "a", tmp_path / "a.new", tmp_path / "theirs"
    theirs.write_bytes(b"theirs")
    if kind == "link":
        new.symlink_to(theirs)
    else:
        os.mkfifo(new)
    with replacing(path) as file:
        file.write(b"whole")
    assert (path.read_bytes(), theirs.read_bytes()) == (b"whole", b"theirs")
    assert not path.is_symlink() and not new.exists()
