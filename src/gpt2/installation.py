"""Whether this Python can run the repository; if not, one line names one that can.

Nothing here needs more than Python 3.6, so that old versions get as far as the line.
"""

import os
import shlex
import sys
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NEEDED = ("numpy", "regex", "requests", "tensorflow", "tqdm")


def check_installation() -> None:
    """End a script of this repository, or fail an import elsewhere, if something is missing."""
    script = Path(getattr(sys.modules["__main__"], "__file__", None) or "").resolve()
    wrong = _what_is_wrong()
    if not wrong:
        return
    if script.parent not in (ROOT, ROOT / "src"):
        raise ImportError(wrong)
    print(f"{script.name}: {wrong}", file=sys.stderr)
    sys.exit(2)


def _what_is_wrong() -> str:
    missing = [name for name in NEEDED if find_spec(name) is None]
    if sys.version_info < (3, 10):  # noqa: UP036
        found = f"{sys.version_info[0]}.{sys.version_info[1]}"
        wrong = f"Python 3.10 to 3.13 is needed, and {sys.executable} is {found}"
    elif missing:
        wrong = f"{sys.executable} does not have the package {missing[0]}"
    else:
        return ""
    return f"{wrong}; {_remedy()}"


def _remedy() -> str:
    environment = ROOT / ".venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if environment.exists() and str(environment) != sys.executable:
        return f"use {environment}"
    command = [sys.executable, "-m", "pip", "install", "-r", str(ROOT / "requirements.txt")]
    install = " ".join(map(shlex.quote, command))
    return f"`make sample` sets up .venv/bin/python; to install them here: {install}"


def download_command(model_name: str) -> str:
    """The command that downloads a model with the Python that is running."""
    python, script = Path(sys.executable or "python3"), ROOT / "download_model.py"
    return shlex.join([_short(python), _short(script), model_name])


def _short(path: Path) -> str:
    """A path from the working directory, if it leads down from there."""
    here = Path.cwd()
    return str(path.relative_to(here) if here in path.parents else path)
