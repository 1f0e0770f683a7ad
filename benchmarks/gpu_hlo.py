"""The compiled loop's own HLO, run by JAX: for machines where TensorFlow cannot be installed.

    python3 benchmarks/gpu_hlo.py export FOLDER                   # where TensorFlow is
    OTHER_ENVIRONMENT/bin/python benchmarks/gpu_hlo.py run FOLDER # where JAX is, with a GPU or not

`export` writes the program that XLA gets from TensorFlow for the loop, its inputs (random weights
of the 117M shape, and a prompt that is already in the caches), and the tokens that TensorFlow makes
of them on the CPU. `run` compiles that program for JAX's first device. It prints whether the tokens
are the same, how often a cache is copied in the compiled loop (never, where it is updated in
place), and the tokens per second.
"""

import argparse
import json
import re
import statistics
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path += [str(ROOT / "src"), str(ROOT / "tests/helpers")]

from hparams import HParams  # noqa: E402

TINY = HParams(n_vocab=300, n_ctx=64, n_embd=12, n_head=3, n_layer=2)


def first_state(tf, hparams, choose, context, uniform):
    """NumPy arrays: the state after the first token, and the weights, which are random."""
    import model_weights

    import decoder

    with tf.Graph().as_default(), tf.Session() as session:
        lengths = tf.fill([len(context)], context.shape[1])
        batch = decoder.Batch(lengths, tf.constant(context.shape[1]), tf.constant(uniform))
        first = decoder.first_token(hparams, choose, tf.constant(context), batch)
        model_weights.assign(tf, session, model_weights.random_weights(hparams, seed=1))
        return session.run(first)


def export(flags):
    """Write FOLDER/loop.hlo, inputs.npz, expected.npy and shape.json."""
    from gpt2.tensorflow_session import import_tensorflow

    tf = import_tensorflow()
    import decoder
    import engines
    import kv_cache
    import sample

    hparams, batch, n_context, tokens = flags.hparams, flags.batch, 8, flags.tokens
    rng = np.random.default_rng(0)
    context = rng.integers(0, hparams.n_vocab, [batch, n_context], np.int32)
    uniform = rng.random([batch, hparams.n_ctx], np.float32)

    def choose(logits, uniform, *text):
        return sample.sample_token(logits, uniform, temperature=1.0, top_k=40, top_p=1.0)

    state, weights = first_state(tf, hparams, choose, context, uniform)
    state = tf.nest.map_structure(tf.constant, state)
    state = state._replace(caches=kv_cache.grow(state.caches, hparams.n_ctx))
    lengths = np.full(batch, n_context, np.int32)
    inputs = [weights, decoder.Batch(lengths, np.int32(n_context), uniform), state]
    inputs = tf.nest.map_structure(tf.constant, [*inputs, np.int32(tokens)])
    engine = engines.by_name("xla", batch)

    @tf.function(jit_compile=True, autograph=False)
    def loop(*leaves):
        weights, batch, state, end = tf.nest.pack_sequence_as(inputs, leaves)
        weights = tf.nest.map_structure(engine.prepare, weights)
        return decoder.decode_loop(hparams, choose, weights, engine, batch, state, end).text

    leaves = tf.nest.flatten(inputs)
    hlo = loop.experimental_get_compiler_ir(*leaves)(stage="hlo_serialized")
    flags.folder.mkdir(parents=True, exist_ok=True)
    (flags.folder / "loop.hlo").write_bytes(hlo)
    np.savez(flags.folder / "inputs.npz", *[leaf.numpy() for leaf in leaves])
    np.save(flags.folder / "expected.npy", loop(*leaves).numpy()[:, n_context : n_context + tokens])
    n_heads = batch * hparams.n_head
    cache = [n_heads, hparams.n_ctx, hparams.n_embd // hparams.n_head]
    shape = {
        "batch": batch,
        "context": n_context,
        "tokens": tokens,
        "cache": cache,
        "n_caches": 2 * hparams.n_layer,
    }
    (flags.folder / "shape.json").write_text(json.dumps(shape), encoding="utf-8")
    print(f"{flags.folder}: {len(hlo) / 1e3:.0f} kB of HLO, {len(leaves)} inputs")


def compile_hlo(hlo, device):
    """The executable of a serialized HLO module, for a device of JAX."""
    from jax._src.lib import xla_client
    from jax.extend import mlir

    devices = xla_client.DeviceList((device,))
    return device.client.compile_and_load(mlir.hlo_to_stablehlo(hlo), devices)


def run(flags):
    """Run FOLDER's program: compare its tokens, count copies of caches, time it."""
    import jax

    device = jax.devices()[0]
    shape = json.loads((flags.folder / "shape.json").read_text(encoding="utf-8"))
    with np.load(flags.folder / "inputs.npz") as arrays:
        inputs = [jax.device_put(arrays[name], device) for name in arrays.files]
    began = time.perf_counter()
    program = compile_hlo((flags.folder / "loop.hlo").read_bytes(), device)
    print(f"{device.device_kind}, JAX {jax.__version__}; compiled in", end=" ")
    print(f"{time.perf_counter() - began:.1f} s")

    def tokens():
        text = np.asarray(program.execute(inputs)[-1])
        return text[:, shape["context"] : shape["context"] + shape["tokens"]]

    expected, found = np.load(flags.folder / "expected.npy"), tokens()
    same = sum(map(np.array_equal, found, expected))
    print(f"{same} of {len(found)} samples are those of TensorFlow on the CPU")
    cache = ",".join(map(str, shape["cache"]))
    text = program.hlo_modules()[0].to_string().partition("\nENTRY ")[0]  # copies of inputs there
    copies = len(re.findall(rf"= f32\[{cache}\]\S* copy\(", text))
    print(f"{copies} copies of a cache in the loop, which has {shape['n_caches']} caches")
    seconds = []
    for _ in range(flags.rounds):
        began = time.perf_counter()
        tokens()
        seconds.append(time.perf_counter() - began)
    new = shape["batch"] * (shape["tokens"] - 1)  # the first comes with the inputs
    print(f"{new / statistics.median(seconds):.1f} tokens/s in batches of {shape['batch']}")
    if same < len(found):
        sys.exit("the programs differ")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=["export", "run"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--smoke", action="store_true", help="a tiny case, to see that it runs")
    flags = parser.parse_args()
    flags.hparams = HParams()
    if flags.smoke:
        flags.hparams, flags.batch, flags.tokens, flags.rounds = TINY, 2, 12, 1
    {"export": export, "run": run}[flags.command](flags)


if __name__ == "__main__":
    main()
