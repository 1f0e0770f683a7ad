"""Reads every tensor of a checkpoint: `read_tensors.py PREFIX`, run in a separate process.

TensorFlow compares each with its checksum in the index. Nothing else here is imported, so that it
works without the package on the path.
"""

import sys

DAMAGED = 3  # exit status


def read_tensors(prefix: str) -> None:
    """Print the size of each tensor in bytes; exit with DAMAGED at one that is damaged."""
    import tensorflow as tf

    try:
        reader = tf.train.load_checkpoint(prefix)
        for name in reader.get_variable_to_shape_map():
            print(reader.get_tensor(name).nbytes, flush=True)
    except Exception as error:  # of many kinds: an IndexError for a truncated file
        print(" ".join(str(error).split()))
        sys.exit(DAMAGED)


if __name__ == "__main__":
    read_tensors(sys.argv[1])
