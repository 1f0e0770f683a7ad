"""Tokens per second in sampling, next to transformers, CTranslate2 and llama.cpp.

    python3 benchmarks/bench_decode.py --peer_python OTHER_ENVIRONMENT/bin/python [--dtype bfloat16]

All have the same random weights of the 117M shape, made at the first run in --folder (1.5 GB). Each
engine is a process that lives as long as the benchmark; ours samples as the scripts do. They take
turns at each case, and a ratio is the median of the ratios of single rounds. Before anything is
timed, the greedy samples of the engines are compared.

With --dtype bfloat16, the others compute in it or in float16 if they can, CTranslate2 also in int8,
and our float32 has a column of its own. Greedy samples then differ, and are only counted.

The machine must have nothing else to do: PyTorch's threads spin while they wait for each other, so
that a little of another load makes it ten times as slow. `elsewhere` is how many cores were busy
with anything but the engine whose turn it was, the engines that wait included.

A case is BATCHxTOKENS, after a prompt of one token, with top_k 40; or prefillN, the first token
after a prompt of N, in tokens of the prompt. The batch `largest` fills 8 GB with weights and
caches, by what the scripts reckon. `first run` is ours: it loads the weights when the batch is
another than before, and compiles. `of bus` is the share of a plain read's bandwidth that it would
take us to read the weights once for each token. Needs Linux, for /proc.
"""

import argparse
import contextlib
import dataclasses
import functools
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from llama import LlamaCpp
from peer import hugging_face_model

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "src"))  # at the end, as `train` there is another than here

from hparams import HParams  # noqa: E402

CASES = "1x127,1x255,1x1023,prefill512,8x255,32x127,32x255,32x1023,largestx255"
TOP_K = 40
LARGEST = 8e9  # bytes
THREADS = os.cpu_count()
ENVIRONMENT = {"OMP_NUM_THREADS": str(THREADS), "HF_HUB_OFFLINE": "1"}
TINY = HParams(n_vocab=300, n_ctx=64, n_embd=12, n_head=3, n_layer=2)
CHECKED_PROMPTS, CHECKED_CONTEXT, CHECKED_TOKENS = 8, 16, 32
PAUSE = 0.5  # seconds; for 0.2 after its work, OpenMP keeps its threads spinning


class Ours:
    """The LanguageModel of the scripts. Makes the weights where they are missing."""

    def __init__(self, folder, hparams, dtype):
        from gpt2.tensorflow_session import import_tensorflow

        tf = import_tensorflow()
        self.imported = time.time()
        from gpt2.model_folder import ModelFolder

        # Token ids come and go, so no vocabulary is needed.
        ModelFolder.encoder = property(
            lambda model: SimpleNamespace(
                encoder={"<|endoftext|>": -1}, decoder=range(model.hparams.n_vocab)
            )
        )
        self.name = f"TensorFlow {tf.__version__}, {dtype}"
        self.folder, self.dtype, self.sampler, self.made_for = folder, dtype, None, None
        if not (folder / "weights.npz").exists():
            make_weights(folder, hparams, tf)

    def run(self, prompts, tokens, greedy):
        """The token ids that continue each of `prompts`, which are of one length."""
        if self.made_for != (len(prompts), greedy):
            if self.sampler:
                self.sampler.close()
            self.sampler = self._sampler(len(prompts), tokens, greedy)
            self.made_for = len(prompts), greedy
        self.sampler.change(length=tokens)
        pieces = self.sampler.stream_tokens(prompts, range(1, len(prompts) + 1))
        return [[*chain(*parts)] for parts in zip(*pieces, strict=True)]

    def _sampler(self, batch_size, tokens, greedy):
        from gpt2.language_model import LanguageModel

        return LanguageModel(
            model_name=self.folder.name,
            models_dir=str(self.folder.parent),
            seed=0,
            batch_size=batch_size,
            length=tokens,
            temperature=0 if greedy else 1,
            top_k=TOP_K,
            top_p=1,
            device="cpu",
            dtype=self.dtype,
        )


def make_weights(folder, hparams, tf):
    """Write random variables, as a released checkpoint and as the peers read them."""
    import model

    with tf.Graph().as_default(), tf.Session() as session:
        model.model(hparams, tf.zeros([1, 1], tf.int32))
        values, rng = {}, np.random.default_rng(0)
        for variable in tf.global_variables():
            name = variable.op.name
            # Embeddings that are large, and a last gain of both signs: so greedy samples vary.
            scale = {"model/wte": 0.2, "model/wpe": 0.2, "model/ln_f/g": 1}.get(name, 0.02)
            mean = 1 if name.endswith("/g") and scale < 1 else 0
            values[name] = rng.normal(mean, scale, variable.shape).astype(np.float32)
        variables = tf.global_variables()
        feed = {v.initializer.inputs[1]: values[v.op.name] for v in variables}
        session.run([v.initializer for v in variables], feed)
        tf.train.Saver().save(session, str(folder / "model.ckpt"))
    shape = json.dumps(dataclasses.asdict(hparams))
    (folder / "hparams.json").write_text(shape, encoding="utf-8")
    np.savez(folder / "part.npz", **values)
    (folder / "part.npz").rename(folder / "weights.npz")  # now all is there


class Transformers:
    def __init__(self, folder, hparams, dtype):
        import torch
        import transformers

        torch.set_num_threads(THREADS)
        self.torch = torch
        self.name = f"transformers {transformers.__version__}, PyTorch {torch.__version__}, {dtype}"
        self.model = peer_model(folder, hparams).to(getattr(torch, dtype)).eval()
        self.model.generation_config.eos_token_id = None

    def run(self, prompts, tokens, greedy):
        ids = self.torch.tensor(prompts)
        draw = {"do_sample": False} if greedy else {"do_sample": True, "top_k": TOP_K}
        with self.torch.inference_mode():
            rows = self.model.generate(
                ids,
                attention_mask=self.torch.ones_like(ids),
                max_new_tokens=tokens,
                pad_token_id=0,
                **draw,
            )
        return rows[:, ids.shape[1] :].tolist()


class CTranslate2:
    """Its names of the tokens are their ids in digits."""

    def __init__(self, folder, hparams, dtype):
        import ctranslate2

        if dtype not in ctranslate2.get_supported_compute_types("cpu"):
            raise ImportError(f"it has no {dtype} on this processor")
        self.name = f"CTranslate2 {ctranslate2.__version__}, {dtype}"
        converted = folder / "ctranslate2"
        if not converted.exists():
            with tempfile.TemporaryDirectory(dir=folder) as temporary:
                self._convert(folder, hparams, Path(temporary)).rename(converted)
        self.generator = ctranslate2.Generator(
            str(converted),
            compute_type=dtype,
            intra_threads=THREADS,
            inter_threads=1,
        )

    @staticmethod
    def _convert(folder, hparams, temporary):
        import transformers
        from ctranslate2.converters import TransformersConverter

        transformers.utils.logging.disable_progress_bar()
        peer_model(folder, hparams).save_pretrained(temporary)
        end = str(hparams.n_vocab - 1)
        special = dict.fromkeys(["unk_token", "bos_token", "eos_token"], end)
        vocabulary = {str(i): i for i in range(hparams.n_vocab)}
        for name, content in {
            "vocab.json": vocabulary,
            "tokenizer_config.json": {"tokenizer_class": "GPT2Tokenizer", **special},
        }.items():
            (temporary / name).write_text(json.dumps(content), encoding="utf-8")
        (temporary / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
        return Path(TransformersConverter(str(temporary)).convert(str(temporary / "converted")))

    def run(self, prompts, tokens, greedy):
        results = self.generator.generate_batch(
            [[str(token) for token in prompt] for prompt in prompts],
            max_length=tokens,
            min_length=tokens,
            sampling_topk=1 if greedy else TOP_K,
            include_prompt_in_result=False,
        )
        return [result.sequences_ids[0] for result in results]


ENGINES = {
    "ours": Ours,
    "ours, float32": Ours,
    "transformers": Transformers,
    "ctranslate2": CTranslate2,
    "ctranslate2 int8": CTranslate2,
    "llama.cpp": functools.partial(LlamaCpp, top_k=TOP_K),
}
TYPES = {  # what each engine computes in, by --dtype
    "float32": dict.fromkeys(["ours", "transformers", "ctranslate2", "llama.cpp"], "float32"),
    "bfloat16": {
        "ours": "bfloat16",
        "ours, float32": "float32",
        "transformers": "bfloat16",
        "ctranslate2": "bfloat16",
        "ctranslate2 int8": "int8",
        "llama.cpp": "float16",
    },
}


def peer_model(folder, hparams):
    names = {"n_vocab": "vocab_size", "n_ctx": "n_positions"}
    shape = {names.get(name, name): value for name, value in vars(hparams).items()}
    return hugging_face_model(folder / "weights.npz", **shape)


def serve(flags):
    """Be an engine: answer each request on stdin, the arguments of `run`, by a line."""
    try:
        dtype = TYPES[flags.dtype][flags.serve]
        engine = ENGINES[flags.serve](flags.folder, flags.hparams, dtype)
    except ImportError as error:
        print(json.dumps({"missing": str(error)}), flush=True)
        return
    imported = getattr(engine, "imported", None)
    print(json.dumps({"name": engine.name, "imported": imported}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        began = time.perf_counter()
        ids = engine.run(**request)
        seconds = time.perf_counter() - began
        print(json.dumps({"seconds": seconds, "ids": ids}), flush=True)


class Worker:
    """An engine in a process of its own: this script with --serve."""

    def __init__(self, engine, flags, stack, settings=None):
        """Start it; `settings` are environment variables."""
        self.engine, self.began = engine, time.time()
        self.process = stack.enter_context(
            subprocess.Popen(
                [
                    sys.executable if ENGINES[engine] is Ours else flags.peer_python,
                    __file__,
                    f"--serve={engine}",
                    f"--dtype={flags.dtype}",
                    f"--folder={flags.folder}",
                    f"--hparams={json.dumps(vars(flags.hparams))}",
                ],
                env={**os.environ, **ENVIRONMENT, **(settings or {})},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        )
        self.hello = self._read()

    def _read(self):
        line = self.process.stdout.readline()
        return json.loads(line) if line else sys.exit(f"{self.engine} failed: see above")

    def run(self, prompts, tokens, greedy=False):
        """Let it continue prompts: seconds, and the token ids."""
        request = {"prompts": prompts, "tokens": tokens, "greedy": greedy}
        print(json.dumps(request), file=self.process.stdin, flush=True)
        reply = self._read()
        assert [len(row) for row in reply["ids"]] == [tokens] * len(prompts)
        return reply["seconds"], reply["ids"]

    def peak_memory(self):
        """Bytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="utf-8")
        return 1024 * int(re.search(r"VmHWM:\s*(\d+) kB", status)[1])

    def busy_seconds(self):
        """Processor time that it has taken."""
        stat = Path(f"/proc/{self.process.pid}/stat").read_text(encoding="utf-8")
        user, system = stat.rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


@dataclasses.dataclass
class Case:
    label: str
    batch: int
    context: int
    tokens: int

    @classmethod
    def parse(cls, label, hparams):
        if found := re.fullmatch(r"prefill(\d+)", label):
            return cls(label, 1, int(found[1]), 1)
        found = re.fullmatch(r"(\d+|largest)x(\d+)", label)
        if not found:
            sys.exit(f"no case {label!r}; it is BATCHxTOKENS, largestxTOKENS or prefillN")
        tokens = int(found[2])
        batch = largest_batch(tokens, hparams) if found[1] == "largest" else int(found[1])
        return cls(f"{batch}x{tokens}", batch, 1, tokens)

    def worth(self):
        """The tokens that are counted."""
        return self.context if self.tokens == 1 else self.batch * self.tokens


def largest_batch(tokens, hparams):
    """How many samples fit in 8 GB beside the weights, by what the sampling scripts reckon."""
    from gpt2.memory import sample_bytes

    return int((LARGEST - 4 * hparams.n_params()) / sample_bytes(hparams, tokens))


def prompts(n, length, n_vocab):
    return np.random.default_rng(length).integers(0, n_vocab, [n, length]).tolist()


def compare_greedy(workers, n_vocab, must_agree):
    """Compare greedy samples of all engines; ends the process if they must agree and do not."""
    texts = prompts(CHECKED_PROMPTS, CHECKED_CONTEXT, n_vocab)
    (_, expected), *others = (w.run(texts, CHECKED_TOKENS, greedy=True) for w in workers)
    distinct = min(len(set(row)) for row in expected)
    for worker, (_, rows) in zip(workers[1:], others, strict=True):
        same = sum(a == b for a, b in zip(rows, expected, strict=True))
        print(
            f"greedy: {same} of {len(rows)} samples of {CHECKED_TOKENS} tokens are those of "
            f"{worker.engine}; {distinct} distinct tokens at least"
        )
        if must_agree and same < len(rows):
            sys.exit("the engines differ: nothing is timed")


def busy_seconds():
    """Processor time that all processes have taken, and that the host gave to other machines."""
    stat = Path("/proc/stat").read_text(encoding="utf-8")
    user, nice, system, _, _, irq, softirq, steal = map(int, stat.split()[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def bandwidth(parts):
    """What all cores together read of memory, in bytes per second; the best of five reads."""
    seconds = []
    with ThreadPoolExecutor(THREADS) as pool:
        for _ in range(5):
            began = time.perf_counter()
            list(pool.map(np.sum, parts))
            seconds.append(time.perf_counter() - began)
    return sum(part.nbytes for part in parts) / min(seconds)


def time_case(case, workers, flags):
    """Seconds of our first run; tokens per second of each round, by engine; and how many cores
    were busy elsewhere."""
    texts = prompts(case.batch, case.context, flags.hparams.n_vocab)
    first, _ = workers[0].run(texts, case.tokens)
    for worker in workers[1:]:
        worker.run(texts, min(case.tokens, CHECKED_TOKENS))
    speeds = {worker.engine: [] for worker in workers}
    busy = watched = 0
    for _ in range(flags.rounds):
        for worker in workers:
            time.sleep(PAUSE)
            busy -= busy_seconds() - worker.busy_seconds()
            seconds, _ = worker.run(texts, case.tokens)
            busy += busy_seconds() - worker.busy_seconds()
            watched += seconds
            speeds[worker.engine].append(case.worth() / seconds)
    return first, speeds, busy / watched


def print_table(workers, flags):
    """Time all cases, a line for each."""
    names = [worker.engine for worker in workers]
    heads = [f"{name:>18}" for name in names] + [f"{'ours/' + name:>23}" for name in names[1:]]
    print(f"\n{'tokens/s':<11}{''.join(heads)}{'first run, s':>14}{'of bus':>8}{'elsewhere':>11}")
    weights, reads = np.ones(flags.hparams.n_params(), np.float32), []
    for case in flags.cases:
        reads.append(bandwidth(np.array_split(weights, THREADS)))
        first, speeds, elsewhere = time_case(case, workers, flags)
        medians = {name: statistics.median(values) for name, values in speeds.items()}
        cells = [f"{median:18.1f}" for median in medians.values()]
        for name in names[1:]:
            pairs = zip(speeds["ours"], speeds[name], strict=True)
            cells.append(f"{statistics.median(a / b for a, b in pairs):23.2f}")
        bytes_of_weights = (4 if flags.dtype == "float32" else 2) * flags.hparams.n_params()
        share = medians["ours"] * bytes_of_weights / reads[-1]
        bus = f"{share:.0%}" if case.batch == 1 and case.tokens > 1 else ""
        print(f"{case.label:<11}{''.join(cells)}{first:14.1f}{bus:>8}{elsewhere:11.2f}", flush=True)
    speed = statistics.median(reads) / 1e9
    print(f"\nplain read of {weights.nbytes / 1e6:.0f} MB: {speed:.1f} GB/s")


def print_start(flags):
    """A fresh process of ours: to its first token, and its peak memory."""
    n_vocab, n_ctx = flags.hparams.n_vocab, flags.hparams.n_ctx
    context, tokens = min(512, n_ctx), n_ctx - 1
    with contextlib.ExitStack() as stack:
        worker = Worker("ours", flags, stack)
        worker.run(prompts(1, context, n_vocab), 1)
        total, imported = time.time() - worker.began, worker.hello["imported"] - worker.began
        worker.run(prompts(1, 1, n_vocab), tokens)
        peak = worker.peak_memory()
    print(
        f"process start to the first token after a prompt of {context}: {total:.1f} s, "
        f"{imported:.1f} of it until TensorFlow is imported, {total - imported:.1f} since; "
        f"then 1x{tokens}: peak memory {peak / 1e9:.2f} GB"
    )


def processor():
    with contextlib.suppress(OSError, IndexError):
        info = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        return re.findall(r"model name\s*: (.+)", info)[0]
    return platform.machine()


def shape(text):
    return HParams(**json.loads(text))


def options(description, cases, rounds=3):
    """The parser of a benchmark that takes turns at cases, with the flags that all of them have."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, default=ROOT / "models" / "benchmark")
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--dtype", choices=TYPES, default="float32")
    parser.add_argument("--cases", default=cases)
    parser.add_argument("--hparams", type=shape, default=HParams(), help=argparse.SUPPRESS)
    parser.add_argument("--smoke", action="store_true", help="a tiny case, to see that it runs")
    return parser


def main():
    parser = options(__doc__, CASES)
    parser.add_argument("--peer_python", default=sys.executable, help="has what is compared with")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.serve:
        return serve(flags)
    with tempfile.TemporaryDirectory() as folder:
        if flags.smoke:
            flags.hparams = TINY
            flags.folder, flags.cases, flags.rounds = Path(folder), "2x3", 1
        measure(parser, flags)


def measure(parser, flags):
    flags.cases = [Case.parse(label, flags.hparams) for label in flags.cases.split(",")]
    flags.folder.mkdir(parents=True, exist_ok=True)
    held = flags.folder / "hparams.json"
    if held.exists() and shape(held.read_text(encoding="utf-8")) != flags.hparams:
        parser.error(f"{flags.folder} is of another shape; choose another --folder")
    print(f"{processor()}, {THREADS} cores, {flags.hparams.n_params() / 1e6:.1f}M parameters")
    with contextlib.ExitStack() as stack:
        workers = []
        for engine in TYPES[flags.dtype]:
            worker = Worker(engine, flags, stack)
            if "missing" in worker.hello:
                print(f"{engine} is left out: {worker.hello['missing']}")
            else:
                print(f"{engine}: {worker.hello['name']}")
                workers.append(worker)
        if len(workers) > 1:
            compare_greedy(workers, flags.hparams.n_vocab, flags.dtype == "float32")
        print_table(workers, flags)
    print_start(flags)


if __name__ == "__main__":
    main()
