"""Synchronous data-parallel training in several processes.

Each worker is a `tf.train.Server` with a session and a copy of the model. Collective operations
sum what the workers compute. Worker 0 is the chief, which writes all files.
"""

import logging
import os
import threading
from typing import Any

import tensorflow.compat.v1 as tf

from gpt2.training.options import TFConfig
from user_error import UserError

log = logging.getLogger("gpt2")
START_SECONDS = 600  # how long a worker waits for the others at the start
HEARTBEAT_SECONDS = 5  # between two checks that all workers respond
DEAD_SECONDS = 30  # without a response
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
        self._finished = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)

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

        Every worker must build its collectives in the same order and run them together.

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
        )
        parts = tf.split(total, [x.shape.num_elements() for x in tensors])
        return [tf.reshape(part, x.shape) for part, x in zip(parts, tensors, strict=True)]

    def broadcast(self, x: Any) -> Any:
        """The chief's value of a tensor of static shape."""
        return self.all_reduce([x if self.is_chief else tf.zeros_like(x)])[0]

    def start(self, session: Any, fetches: Any) -> None:
        """Wait for all workers and run `fetches` together, then watch that all of them respond.

        Raises: UserError if a worker does not appear.
        """
        if self.size == 1:
            return
        log.info("worker %d is waiting for all %d workers", self.index, self.size)
        try:
            session.run(fetches, options=tf.RunOptions(timeout_in_ms=START_SECONDS * 1000))
        except tf.errors.OpError:
            raise UserError(
                f"not all workers started within {START_SECONDS} s ({', '.join(self.addresses)}); "
                "start every worker with the same flags, and check its output"
            ) from None
        self._connect()
        self._watcher.start()

    def stop_watching(self) -> None:
        """Allow workers to exit from now on."""
        self._finished.set()

    def exit_if_worker_died(self) -> None:
        """After an error: exit if its cause is that another worker stopped responding."""
        if self._watcher.is_alive():
            self._watcher.join(2 * HEARTBEAT_SECONDS + DEAD_SECONDS)

    def _connect(self) -> None:
        """Open a session that reaches all workers, and build an operation to run on each."""
        config = tf.ConfigProto(operation_timeout_in_ms=DEAD_SECONDS * 1000)
        self._heartbeat_session = tf.Session(self._target, graph=tf.Graph(), config=config)
        self._heartbeats = []
        with self._heartbeat_session.graph.as_default():
            for i in range(self.size):
                with tf.device(f"/job:worker/task:{i}/device:CPU:0"):
                    self._heartbeats.append(tf.no_op())
        self._heartbeat_session.run(self._heartbeats)  # slower, because it sets up the connections

    def _watch(self) -> None:
        """Exit when a worker stops responding: a collective would wait for it forever."""
        while not self._finished.wait(HEARTBEAT_SECONDS):
            for i, heartbeat in enumerate(self._heartbeats):
                try:
                    self._heartbeat_session.run(heartbeat)
                except tf.errors.OpError:
                    if self._finished.is_set():
                        return
                    log.error(
                        f"\nworker {i} at {self.addresses[i]} stopped responding, so worker "
                        f"{self.index} exits; start all workers again to resume from the last "
                        "checkpoint"
                    )
                    os._exit(1)  # the main thread is inside TensorFlow, where no exception reaches
