"""Samples for tests of their file, and a program, `sample_writer.py PATH`, that writes 40 of them.

With a second argument, no file may have more bytes than that, as on a full disk.
"""

import sys
from pathlib import Path

from gpt2.sampling.sample_file import FORMATS, Output, Sample

SETTINGS = {"model": "tiny", "seed": 3}
LAYOUT = {"shard": "1/1"}


def sample(number):
    return Sample(number, None, [number, 7], f"text {number}\nè“{'x' * number}", number % 2 == 0)


if __name__ == "__main__":
    path, *most = sys.argv[1:]
    if most:
        import resource
        import signal

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(most[0]), int(most[0])))
    output = Output(Path(path), FORMATS["text"], SETTINGS, LAYOUT)
    print("begun", flush=True)
    try:
        for number in range(output.done + 1, 41):
            output.write([sample(number)])
    except OSError as error:
        sys.exit(f"{number} {error.strerror}")
