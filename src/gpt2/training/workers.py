"""Several processes that train one model in step, as the variable TF_CONFIG says.

The runtime is TensorFlow's own: each process is a tf.train.Server with a session and a copy of the
model, and collective operations add up what the processes computed. Worker 0 is the chief, which
writes all files.
"""

import os
import sys
import threading
from typing import Any

from hparams import UserError, parse_json

JOIN_SECONDS = 600  # how long the workers wait for each other at the start
PULSE_SECONDS = 5  # between two looks at whether all of them live
DEAD_SECONDS = 30  # without an answer


class Cluster:
    """The processes that train together; a single one unless TF_CONFIG names others.

    Attributes: size, index, and is_chief of this process.
    Raises: UserError if TF_CONFIG is not in order.
    """

    def __init__(self) -> None:
        self.workers, self.index = _parse(os.environ.get("TF_CONFIG", ""))
        self.size = len(self.workers)
        self.is_chief = self.index == 0
        if self.size > 1:  # TensorFlow reports each try to reach a worker that is still to come
            os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        self._target = ""
        self._n_sums = 0
        self._over = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)

    def session(self, config: Any) -> Any:
        """A session whose operations run in this process.

        Args:
          config: tf.ConfigProto; it is changed.
        """
        import tensorflow.compat.v1 as tf

        if self.size > 1:
            config.experimental.collective_group_leader = "/job:worker/replica:0/task:0"
            addresses = {"worker": self.workers}
            try:
                server = tf.train.Server(
                    addresses, job_name="worker", task_index=self.index, config=config
                )
            except tf.errors.OpError:
                address = self.workers[self.index]
                raise UserError(f"TF_CONFIG: cannot listen on {address}; is it in use?") from None
            self._target = server.target
            config.device_filters.append(f"/job:worker/task:{self.index}")
        return tf.Session(self._target, config=config)

    def device(self) -> Any:
        """The scope in which to build the graph."""
        import tensorflow.compat.v1 as tf

        return tf.device(f"/job:worker/task:{self.index}" if self.size > 1 else None)

    def sum(self, x: Any) -> Any:
        """The sum of a tensor over the workers, which must all build and run this together."""
        import tensorflow.compat.v1 as tf

        if self.size == 1:
            return x
        self._n_sums += 1
        return tf.raw_ops.CollectiveReduce(
            input=x,
            group_size=self.size,
            group_key=1,
            instance_key=self._n_sums,
            merge_op="Add",
            final_op="Id",
            subdiv_offsets=[0],
        )

    def from_chief(self, x: Any) -> Any:
        """The chief's value of a tensor."""
        import tensorflow.compat.v1 as tf

        return self.sum(x if self.is_chief else tf.zeros_like(x))

    def join(self, session: Any, fetches: Any) -> None:
        """Wait for all workers and run `fetches` together; from then on watch whether they live.

        Raises: UserError if some do not come.
        """
        import tensorflow.compat.v1 as tf

        if self.size == 1:
            return
        print(f"worker {self.index} waits for the others of {self.size}", file=sys.stderr)
        try:
            session.run(fetches, options=tf.RunOptions(timeout_in_ms=JOIN_SECONDS * 1000))
        except tf.errors.OpError:
            others = ", ".join(self.workers)
            raise UserError(
                f"not all workers came in {JOIN_SECONDS} s ({others}); start each with the same "
                "flags, and look at what it says"
            ) from None
        self._pulses = self._connect()
        self._watcher.start()

    def dissolve(self) -> None:
        """From now on, workers may end."""
        self._over.set()

    def blame(self) -> None:
        """After an error, end the process if it came of a worker that does not answer."""
        if self._watcher.is_alive():
            self._watcher.join(2 * PULSE_SECONDS + DEAD_SECONDS)

    def _connect(self) -> tuple[Any, list[Any]]:
        """A session that reaches all workers, and for each an operation that it answers."""
        import tensorflow.compat.v1 as tf

        config = tf.ConfigProto(operation_timeout_in_ms=DEAD_SECONDS * 1000)
        session = tf.Session(self._target, graph=tf.Graph(), config=config)
        with session.graph.as_default():
            pulses = []
            for i in range(self.size):
                with tf.device(f"/job:worker/task:{i}/device:CPU:0"):
                    pulses.append(tf.no_op())
        for pulse in pulses:  # the first time takes more than an answer
            session.run(pulse)
        return session, pulses

    def _watch(self) -> None:
        """End the process when a worker does not answer: a sum would wait for it forever."""
        import tensorflow.compat.v1 as tf

        session, pulses = self._pulses
        while not self._over.wait(PULSE_SECONDS):
            for i, pulse in enumerate(pulses):
                try:
                    session.run(pulse)
                except tf.errors.OpError:
                    if not self._over.is_set():
                        self._stop(i)

    def _stop(self, dead: int) -> None:
        print(
            f"\nworker {dead} at {self.workers[dead]} does not answer, so worker {self.index} "
            "stops; start all of them again to go on from the last checkpoint",
            file=sys.stderr,
            flush=True,
        )
        os._exit(1)  # the main thread is inside TensorFlow and would never hear of it


def _parse(text: str) -> tuple[list[str], int]:
    """The workers' addresses, and which one this process is."""
    if not text:
        return ["localhost"], 0
    form = '{"cluster": {"worker": ["HOST:PORT", ...]}, "task": {"type": "worker", "index": 0}}'
    try:
        config = parse_json(text)
        jobs, task = config["cluster"], config["task"]
        workers, index = jobs["worker"], int(task["index"])
        addresses = isinstance(workers, list) and all(isinstance(w, str) for w in workers)
        if list(jobs) == ["worker"] and task["type"] == "worker" and addresses:
            return workers, range(len(workers)).index(index)
    except (ValueError, OverflowError, KeyError, TypeError):
        pass
    raise UserError(f"TF_CONFIG must read {form}, got {text}")
