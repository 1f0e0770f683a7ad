"""How fast the encoder is, compared with tiktoken and tokenizers if these are installed.

    python3 benchmarks/bench_encode.py --model=models/117M --corpus=../shared/corpus

All encoders take turns on the same text in one thread of one process. A ratio is the median of the
ratios of single turns, in processor time, so that it is meaningful on a busy machine. Before
anything is timed, the results are compared. Each text is encoded in three states of our encoder:

  cold  a new encoder encodes the first two thirds of the text
  new   then the last third, which it has not seen
  warm  then the first two thirds again

English and Shakespeare are files in --corpus. Python is the source of the standard library. Chinese
is random: runs of 1 to 40 characters, on average 9, from the first 6,000 of a shuffled U+4E00 to
U+9FA5, the k-th with weight 1 / (k + 10), between punctuation marks.
"""

import argparse
import functools
import itertools
import json
import math
import os
import platform
import random
import statistics
import string
import sys
import time
from pathlib import Path

os.environ["TOKENIZERS_PARALLELISM"] = os.environ["RAYON_NUM_THREADS"] = "1"
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

import encoder as ours  # noqa: E402

END = ours.END_OF_TEXT
MARKS = "\uff0c\u3002\u3001\uff01\uff1f\n"  # comma, full stop, pause, exclamation, question


class Ours:
    def __init__(self, folder):
        self.encoder = ours.get_encoder(folder.name, models_dir=folder.parent)
        self.encode, self.decode = self.encoder.encode, self.encoder.decode


class Tiktoken:
    def __init__(self, folder):
        import tiktoken

        table = json.loads((folder / "encoder.json").read_text(encoding="utf-8"))
        byte_of = {char: byte for byte, char in ours.bytes_to_unicode().items()}
        encoding = tiktoken.Encoding(
            "gpt2",
            pat_str=ours.PATTERN.pattern,
            mergeable_ranks={
                bytes([byte_of[c] for c in t]): i for t, i in table.items() if t != END
            },
            special_tokens={END: table[END]},
        )
        self.encode, self.decode = encoding.encode_ordinary, encoding.decode


class Tokenizers:
    def __init__(self, folder):
        import tokenizers

        model = tokenizers.models.BPE.from_file(
            str(folder / "encoder.json"), str(folder / "vocab.bpe")
        )
        tokenizer = tokenizers.Tokenizer(model)
        tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = tokenizers.decoders.ByteLevel()
        self.encode, self.decode = lambda text: tokenizer.encode(text).ids, tokenizer.decode


def chinese(n_characters, seed=0):
    """Text as the module's docstring describes it."""
    rng = random.Random(seed)
    characters = [chr(code) for code in range(0x4E00, 0x9FA6)]
    rng.shuffle(characters)
    characters = characters[:6000]
    weights = list(itertools.accumulate(1 / (k + 10) for k in range(len(characters))))
    runs = []
    while n_characters > 0:
        length = min(1 + int(rng.expovariate(1 / 8.5)), 40, n_characters)
        runs += rng.choices(characters, cum_weights=weights, k=length)
        runs += rng.choices(MARKS, weights=[50, 30, 10, 2, 2, 6])
        n_characters -= length + 1
    return "".join(runs)


def python_source(n_characters):
    """The standard library's modules, one after the other."""
    parts = []
    for path in sorted(Path(os.__file__).parent.rglob("*.py")):
        if n_characters <= 0:
            break
        if "site-packages" not in path.parts:
            parts.append(path.read_text(encoding="utf-8", errors="ignore"))
            n_characters -= len(parts[-1])
    return "".join(parts)


def load_texts(corpus):
    files = {"English": "web_english.txt", "Shakespeare": "tinyshakespeare.txt"}
    texts = {
        name: (corpus / file).read_text(encoding="utf-8")
        for name, file in files.items()
        if (corpus / file).exists()
    }
    return texts | {"Python": python_source(3_000_000), "Chinese": chinese(400_000)}


def clock(function, argument):
    """Seconds of processor time that a call takes, and what it returns."""
    start = time.process_time()
    result = function(argument)
    return time.process_time() - start, result


def in_turn(contenders, rounds, task):
    """Seconds by task and contender; `task` returns them by step for one contender."""
    seconds = {}
    for _ in range(rounds):
        for name, make in contenders.items():
            for step, value in task(make).items():
                seconds.setdefault(step, {}).setdefault(name, []).append(value)
    return seconds


def time_text(folder, first, rest, make):
    """One turn: the seconds of each step."""
    contender = make(folder)
    cold, ids = clock(contender.encode, first)
    new, _ = clock(contender.encode, rest)
    warm, _ = clock(contender.encode, first)
    decode, text = clock(contender.decode, ids)
    assert text == first
    return {"cold": cold, "new": new, "warm": warm, "decode": decode}


def time_word(folder, word, make):
    return {"cold": clock(make(folder).encode, word)[0]}


def check_equal(contenders, folder, texts):
    encoders = {name: make(folder) for name, make in contenders.items()}
    for what, text in texts.items():
        expected = encoders["ours"].encode(text)
        for name, encoder in encoders.items():
            if encoder.encode(text) != expected:
                sys.exit(f"{name} gives different ids for {what}: nothing is timed")


def ratios(seconds, other):
    """How many times as fast as the other we are: median, lowest and highest of the turns."""
    values = [b / a for a, b in zip(seconds["ours"], seconds[other], strict=True)]
    return f"{statistics.median(values):8.2f} ({min(values):.2f}-{max(values):.2f})"


def print_row(label, seconds, megabytes=None):
    """Median MB/s, or milliseconds, of each contender, and our ratio to each."""
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    unit = "MB/s" if megabytes else "ms"
    numbers = {n: megabytes / s if megabytes else 1000 * s for n, s in medians.items()}
    cells = "".join(f"{number:11.1f}" for number in numbers.values())
    compared = "".join(f"  {ratios(seconds, name):>20}" for name in seconds if name != "ours")
    print(f"{label:<22}{unit:>5}{cells}{compared}", flush=True)


def worst_cases(n, seed=0):
    rng = random.Random(seed)
    return {
        "letters": "".join(rng.choices(string.ascii_lowercase, k=n)),
        "digits": "".join(rng.choices(string.digits, k=n)),
        "one letter": "a" * n,
        "equal signs": "=" * n,
        "spaces": " " * n,
        "Chinese": "".join(
            rng.choices(chinese(5000).translate(dict.fromkeys(map(ord, MARKS))), k=n // 3)
        ),
    }


def print_growth(folder, smallest):
    """Time for one word of letters as it grows, over n log n."""
    encode = Ours(folder).encode
    print("\none word of random letters: seconds, and nanoseconds over n log2 n")
    for n in (smallest, 4 * smallest, 16 * smallest, 64 * smallest):
        seconds = min(clock(encode, worst_cases(n, seed)["letters"])[0] for seed in range(3))
        print(f"{n:>10} bytes {seconds:8.3f} s {1e9 * seconds / (n * math.log2(n)):8.1f} ns")


def print_memory(folder, megabytes):
    """How much memory is taken by words that are never repeated."""
    encoder = Ours(folder).encoder
    table = encoder._encode.__self__
    rng = random.Random(0)
    print("\nwords that are never repeated: pieces kept, and the MB they take")
    encoded, next_line = 0, 0
    while encoded <= megabytes * 1e6:
        if encoded >= next_line:
            size = sys.getsizeof(table) + sum(map(sys.getsizeof, [*table.keys(), *table.values()]))
            print(f"{encoded / 1e6:>8.0f} MB encoded {len(table):>8} pieces {size / 1e6:8.1f} MB")
            next_line += megabytes * 1e6 / 8
        letters = "".join(rng.choices(string.ascii_lowercase, k=500_000))
        text = " ".join(letters[i : i + 9] for i in range(0, len(letters), 9))
        encoder.encode(text)
        encoded += len(text)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, help="folder of encoder.json and vocab.bpe")
    parser.add_argument("--corpus", type=Path, default=ROOT.parent / "shared" / "corpus")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory_mb", type=float, default=16, help="MB of text to fill the memory")
    parser.add_argument("--smoke", action="store_true", help="a tiny case, to see that it runs")
    args = parser.parse_args()
    if args.smoke:
        args.model, args.rounds, args.memory_mb = ROOT / "models" / "1M", 1, 0.1
    places = [args.model] if args.model else [ROOT / "models/117M", ROOT.parent / "shared/gpt2"]
    folder = next((place.resolve() for place in places if place.is_dir()), None)
    if folder is None:
        parser.error(f"no vocabulary in {places[0]}; get one: python3 download_model.py 117M")

    contenders = {"ours": Ours}
    for name, make in (("tiktoken", Tiktoken), ("tokenizers", Tokenizers)):
        try:
            make(folder)
            contenders[name] = make
        except ImportError:
            print(f"{name} is not installed: left out")
    texts, words = load_texts(args.corpus), worst_cases(1000 if args.smoke else 100_000)
    if args.smoke:
        texts = {what: text[:20_000] for what, text in texts.items()}
    check_equal(contenders, folder, texts | words)

    print(f"Python {platform.python_version()}, {args.rounds} turns, medians")
    names = "".join(f"{name:>11}" for name in contenders)
    compared = "".join(f"  {'x ' + name + ' (range)':>20}" for name in contenders if name != "ours")
    print(f"{'':<27}{names}{compared}")
    timed = in_turn(contenders, args.rounds, lambda make: {"load": clock(make, folder)[0]})
    print_row("load", timed["load"])
    for what, text in texts.items():
        cut = text.rindex("\n", 0, 2 * len(text) // 3)
        first, rest = text[:cut], text[cut:]
        timed = in_turn(contenders, args.rounds, functools.partial(time_text, folder, first, rest))
        for step, seconds in timed.items():
            size = len((rest if step == "new" else first).encode("utf-8")) / 1e6
            print_row(f"{what}, {step}", seconds, size)
    print("\none word of 100 kB" if not args.smoke else "\none word of 1 kB")
    for what, word in words.items():
        timed = in_turn(contenders, args.rounds, functools.partial(time_word, folder, word))
        print_row(what, timed["cold"])
    print_growth(folder, 250 if args.smoke else 25_000)
    print_memory(folder, args.memory_mb)


if __name__ == "__main__":
    main()
