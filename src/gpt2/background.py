"""A second thread that loads a model while a text is typed or the graph is built."""

import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

THREAD_NAME = "gpt2-background"  # of each such thread


def start(work: Callable[[], Any]) -> "Future[Any]":
    """Begin work in a thread; `result()` waits for its end, and raises what it raised."""
    return ThreadPoolExecutor(1, THREAD_NAME).submit(work)


def leave(status: int) -> None:
    """End the process now if such a thread still works, as Python would wait for it."""
    if any(thread.name.startswith(THREAD_NAME) for thread in threading.enumerate()):
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(status)
