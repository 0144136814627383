"""`python -m benchmarks [fabric|results|start …]`: measure, write benchmarks/results/NAME.jsonl, print a table."""

import importlib
import sys

from benchmarks import measure

NAMES = ("fabric", "results", "start")


def main(wanted: list[str]) -> None:
    """Run the wanted benchmarks, or all."""
    if unknown := [name for name in wanted if name not in NAMES]:
        raise SystemExit(f"there is no benchmark {unknown[0]!r}; there are: {', '.join(NAMES)}")
    for name in wanted or NAMES:
        book = measure.Book(name)
        importlib.import_module(f"benchmarks.{name}").run(book)
        book.table()


if __name__ == "__main__":
    main(sys.argv[1:])
