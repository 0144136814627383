"""A short story on a disk whose n-th call fails, for every n: `LD_PRELOAD=… python -m tests.unit.faulty_story FOLDER EVERY`.

ENOSPC comes once, as when somebody makes room; EIO stays. Either the spool goes on, or it ends with one sentence (`Broken`);
and whatever it said before is there when the disk is well again. Prints as JSON how often it did which.
"""

import collections
import ctypes
import errno
import json
import os
import pathlib
import sys

from beamline_side.spool.sqlite_spool import Spool
from beamtide.errors import Broken
from tests.unit.spool_story import RESERVE, audit, live

TASKS = 15
disk = ctypes.CDLL(None)


def once(path: pathlib.Path, at: int, number: int) -> str:
    """Return how a story ended whose `at`-th call of the disk failed: "goes on", "ends", or "" if it had not so many."""
    ear, voice = os.pipe()
    pid = os.fork()
    if not pid:
        code = 1
        try:
            disk.fault(ctypes.c_long(at), number, number == errno.EIO)
            live(path, set(), voice, 1, TASKS)
            code = 0 if disk.faults_counted() >= at else 3
        except Broken as trouble:
            os.write(voice, f"broken {trouble}\n".encode())
            code = 75
        finally:
            os._exit(code)
    os.close(voice)
    with os.fdopen(ear) as file:
        lines = [line.strip() for line in file]
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in (0, 3, 75), f"call {at}, {errno.errorcode[number]}: exit code {code}"
    said = {line for line in lines if not line.startswith("broken")}
    assert code != 75 or "a restart continues from there" in lines[-1] or "spool" in lines[-1]
    spool = Spool(path, reserve=RESERVE)
    audit(spool, said)
    spool.close()
    return {0: "goes on", 3: "", 75: "ends"}[code]


def main(folder: pathlib.Path, every: int) -> None:
    ends: dict[str, collections.Counter[str]] = {}
    for number in (errno.ENOSPC, errno.EIO):
        name = errno.errorcode[number]
        ends[name] = collections.Counter()
        at = 1
        while end := once(folder / f"{name} {at}" / "story.sqlite", at, number):
            ends[name][end] += 1
            at += every
    print(json.dumps(ends))


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), int(sys.argv[2]))
