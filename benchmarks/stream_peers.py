"""The peers: the same stream of tasks that do nothing, through dask.distributed or Parsl's HTEX, with two workers.

Runs in a Python that has them (`pip install distributed parsl`); nothing of Beamtide is imported.

python stream_peers.py dask|parsl ONES MANY      prints {"latency_ms": [one after the other], "rate": tasks per second of MANY}
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

Submit = Callable[[int], Any]


def measured(submit: Submit, ones: int, many: int) -> dict[str, Any]:
    """Return latencies of `ones` tasks, and the rate of `many` at once; `submit` returns a future."""
    for future in [submit(number) for number in range(50)]:
        future.result()
    latency = []
    for number in range(ones):
        began = time.perf_counter()
        submit(1000 + number).result()
        latency.append(1e3 * (time.perf_counter() - began))
    began = time.perf_counter()
    for future in [submit(100_000 + number) for number in range(many)]:
        future.result()
    return {"latency_ms": latency, "rate": many / (time.perf_counter() - began)}


def nothing(number: int) -> int:
    """Be a task."""
    return number


def dask(ones: int, many: int) -> dict[str, Any]:
    """Two worker processes of one thread."""
    from distributed import Client, LocalCluster

    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster) as client:
        client.wait_for_workers(2)
        return measured(lambda number: client.submit(nothing, number, pure=False), ones, many)


def parsl(ones: int, many: int) -> dict[str, Any]:
    """One block of two workers, with CURVE, as HTEX has it by default."""
    import parsl
    from parsl.config import Config
    from parsl.executors import HighThroughputExecutor
    from parsl.providers import LocalProvider

    executor = HighThroughputExecutor(
        label="htex",
        address="127.0.0.1",
        max_workers_per_node=2,
        encrypted=True,
        provider=LocalProvider(init_blocks=1, min_blocks=0, max_blocks=1),
    )
    config = Config(executors=[executor], strategy="none", run_dir=tempfile.mkdtemp(prefix="parsl-"), usage_tracking=0)
    with parsl.load(config):
        return measured(parsl.python_app(nothing), ones, many)


if __name__ == "__main__":
    print(json.dumps({"dask": dask, "parsl": parsl}[sys.argv[1]](*map(int, sys.argv[2:]))))
