"""A Ray cluster of two nodes on loopback, with a core each, in processes of its own.

It prints its address. A line on standard input kills one node; the end of it ends the cluster.
"""

import sys

from ray.cluster_utils import Cluster

cluster = Cluster()
cluster.add_node(num_cpus=1, include_dashboard=False)
second = cluster.add_node(num_cpus=1)
print(cluster.address, flush=True)
for _ in sys.stdin:
    cluster.remove_node(second, allow_graceful=False)
    print("killed", flush=True)
cluster.shutdown()
