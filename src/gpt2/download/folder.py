"""The folder of a model while files arrive in it: one run at a time, and no traces of none."""

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from gpt2.download import release
from gpt2.file_lock import is_open_file, try_lock


@contextlib.contextmanager
def only_run(folder: Path, report: Callable[[str], None]) -> Iterator[IO[str]]:
    """The file SUMS of a folder, opened once no other run is writing there.

    A folder in which nothing has arrived is removed at the end. Raises: OSError.
    """
    waited = False
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        with release.open_sums(folder, "a+") as file:
            if not try_lock(file):
                if not waited:
                    report(f"{folder}: waiting for another run that downloads there")
                waited = True
                time.sleep(0.2)
            elif is_open_file(folder / release.SUMS, file):  # else the other run has removed it
                try:
                    yield file
                finally:
                    remove_if_empty(folder, file)
                return


def remove_if_empty(folder: Path, sums: IO[str]) -> None:
    """Leave no trace of a download that brought nothing."""
    if os.fstat(sums.fileno()).st_size == 0:
        with contextlib.suppress(OSError):  # Windows removes no open file
            (folder / release.SUMS).unlink()
            folder.rmdir()
