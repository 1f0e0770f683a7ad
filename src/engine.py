"""What computes: XLA's compiled loop or TensorFlow's own operations, with oneDNN or without.

A user can choose otherwise: GPT2_ENGINE=xla or GPT2_ENGINE=tensorflow in the environment for the
loop, and TensorFlow's own TF_ENABLE_ONEDNN_OPTS=1 or =0 for oneDNN.
"""

import os

from hparams import require

ENGINES = "xla", "tensorflow"


def is_compiled(batch_size):
    """Whether XLA compiles the loop for this batch size; None is any size.

    On a GPU always, and on a CPU for small batches. For large ones XLA reads the caches on one
    core, where TensorFlow's own operations use all cores.

    Raises: UserError if GPT2_ENGINE is none of ENGINES.
    """
    import tensorflow.compat.v1 as tf

    if chosen := os.environ.get("GPT2_ENGINE"):
        require("GPT2_ENGINE", chosen, chosen in ENGINES, f"one of {', '.join(ENGINES)}")
        return chosen == "xla"
    return batch_size is None or batch_size < 16 or bool(tf.config.list_physical_devices("GPU"))
