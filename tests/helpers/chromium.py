"""A real Chromium without a window, for the tests of pages. Skips where there is none."""

import os
import shutil
from contextlib import contextmanager

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


def executable():
    """The browser on this machine, or None."""
    return next(filter(None, map(shutil.which, NAMES)), None)


@contextmanager
def browser():
    """A playwright browser, or a skip that says what is missing."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = executable()
    if not path:
        pytest.skip("no Chromium is installed")
    with sync_api.sync_playwright() as playwright:
        # Root, as in a container, has no sandbox.
        root = hasattr(os, "geteuid") and os.geteuid() == 0
        chromium = playwright.chromium.launch(
            executable_path=path, chromium_sandbox=not root, timeout=100_000
        )
        yield chromium
        chromium.close()
