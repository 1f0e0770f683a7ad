"""A second thread that loads a model while a text is typed or the graph is built."""

import os
import sys
import threading
from collections.abc import Callable


class Task(threading.Thread):
    """A function that runs in a thread of its own. Python waits for it before it exits.

    Args:
      work: takes no arguments. If an exception ends it, `wait` raises that.
    """

    def __init__(self, work: Callable[[], object]):
        super().__init__()
        self._work = work
        self.error: BaseException | None = None
        self.start()

    def run(self) -> None:
        """Called by the thread itself."""
        try:
            self._work()
        except BaseException as error:
            self.error = error

    def wait(self) -> None:
        """Wait for the end. Raises: what the function raised. Ctrl-C ends only the wait."""
        while self.is_alive():
            self.join(0.1)  # in parts: on Windows nothing interrupts a join
        if self.error is not None:
            raise self.error


def leave(status: int) -> None:
    """End the process now if a task still runs, as Python would wait for it at an ordinary end."""
    if any(isinstance(thread, Task) for thread in threading.enumerate()):
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(status)
