"""Synchronous data-parallel training in several processes.

Each worker is a `tf.train.Server` with a session and a copy of the model. Collective operations
sum what the workers compute. Worker 0 is the chief, which writes all files.
"""

from typing import Any

import tensorflow.compat.v1 as tf

from gpt2.training.options import TFConfig
from user_error import UserError

# How long a worker waits for the others: they may still be encoding a text or saving weights.
RESPONSE_SECONDS = 1800
N_SUBDIVISIONS = 8  # parts of an all-reduce: faster, and no message exceeds gRPC's 2 GB


class Workers:
    """The connection of this process to the other workers, if there are any.

    Attributes: size, index and is_chief, as in TFConfig.
    """

    def __init__(self, tf_config: TFConfig = TFConfig()):  # noqa: B008 (frozen)
        self.addresses, self.index = tf_config.addresses, tf_config.index
        self.size, self.is_chief = tf_config.size, tf_config.is_chief
        self._target = ""
        self._n_collectives = 0

    def session(self, config: Any) -> Any:
        """A session whose operations run in this process.

        Args:
          config: tf.ConfigProto; it is modified.
        Raises: UserError if this worker's port is not available.
        """
        if self.size > 1:
            config.experimental.collective_group_leader = "/job:worker/replica:0/task:0"
            jobs = {"worker": list(self.addresses)}
            try:
                server = tf.train.Server(jobs, "worker", self.index, config=config)
            except tf.errors.OpError:
                address = self.addresses[self.index]
                raise UserError(f"TF_CONFIG: cannot listen on {address}; is it in use?") from None
            self._target = server.target
            config.device_filters.append(f"/job:worker/task:{self.index}")
        return tf.Session(self._target, config=config)

    def device(self) -> Any:
        """The device scope in which to build the graph."""
        return tf.device(f"/job:worker/task:{self.index}" if self.size > 1 else None)

    def all_reduce(self, tensors: list[Any]) -> list[Any]:
        """Sum each tensor over the workers, in one collective for all tensors.

        Every worker must build its collectives in the same order and run them together. If one
        stops, those of the others end with a tf.errors.OpError.

        Args:
          tensors: of static shapes and one dtype.
        Returns: the sums, in the same shapes.
        """
        if self.size == 1:
            return tensors
        flat = tf.concat([tf.reshape(x, [-1]) for x in tensors], axis=0)
        self._n_collectives += 1
        total = tf.raw_ops.CollectiveReduce(
            input=flat,
            group_size=self.size,
            group_key=1,
            instance_key=self._n_collectives,
            merge_op="Add",
            final_op="Id",
            subdiv_offsets=[0] * N_SUBDIVISIONS,
            timeout_seconds=RESPONSE_SECONDS,
        )
        parts = tf.split(total, [x.shape.num_elements() for x in tensors])
        return [tf.reshape(part, x.shape) for part, x in zip(parts, tensors, strict=True)]

    def broadcast(self, x: Any) -> Any:
        """The chief's value of a tensor of static shape."""
        return self.all_reduce([x if self.is_chief else tf.zeros_like(x)])[0]
