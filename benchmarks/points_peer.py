"""LiberTEM's centre of mass, in a Python of its own: reads how many frames of which side, then one line per repetition.

python points_peer.py FRAMES SIDE        prints "ready", then for each line on its input the seconds of one pass
"""

import sys
import time

import numpy as np
from libertem.api import Context
from libertem.executor.inline import InlineJobExecutor
from libertem.udf.com import CoMUDF


def main() -> None:
    """Serve passes over the same frames."""
    count, side = (int(word) for word in sys.argv[1:])
    frames = np.random.default_rng(0).poisson(5, (count, side, side)).astype(np.uint16)
    context = Context(executor=InlineJobExecutor())
    dataset = context.load("memory", data=frames.reshape(2, count // 2, side, side), sig_dims=2)
    context.run_udf(dataset=dataset, udf=CoMUDF.with_params())  # compiles
    print("ready", flush=True)
    for _ in sys.stdin:
        began = time.perf_counter()
        context.run_udf(dataset=dataset, udf=CoMUDF.with_params())
        print(time.perf_counter() - began, flush=True)


if __name__ == "__main__":
    main()
