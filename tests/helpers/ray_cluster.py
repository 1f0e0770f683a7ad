"""A Ray cluster of two nodes on loopback, with a core each, in processes of its own.

It prints its address. A line on standard input kills one node; the end of it ends the cluster.
"""

import sys

from ray.cluster_utils import Cluster

LEAN = {"include_log_monitor": False, "no_monitor": True}  # each would be a process more

cluster = Cluster()
settings = {"prestart_worker_first_driver": False}
cluster.add_node(num_cpus=1, include_dashboard=False, _system_config=settings, **LEAN)
second = cluster.add_node(num_cpus=1, **LEAN)
print(cluster.address, flush=True)
for _ in sys.stdin:
    cluster.remove_node(second, allow_graceful=False)
    print("killed", flush=True)
cluster.shutdown()
