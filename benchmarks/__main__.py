"""`python -m benchmarks [fabric|results|start …]`: measure, write benchmarks/results/NAME.jsonl, print a table."""

import importlib
import os
import sys

NAMES = ("fabric", "stream", "results", "start", "elastic", "xrf", "xrd", "ptycho", "points", "whole")


def main(wanted: list[str]) -> None:
    """Run the wanted benchmarks, or all."""
    if unknown := [name for name in wanted if name not in NAMES]:
        raise SystemExit(f"there is no benchmark {unknown[0]!r}; there are: {', '.join(NAMES)}")
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    measure = importlib.import_module("benchmarks.measure")  # after the line above: numpy reads it once
    for name in wanted or NAMES:
        book = measure.Book(name)
        importlib.import_module(f"benchmarks.{name}").run(book)
        book.table()


if __name__ == "__main__":
    main(sys.argv[1:])
