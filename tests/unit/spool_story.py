"""A story of a thousand tasks on a real spool, killed at random instants: `python -m tests.unit.spool_story FOLDER KILLS SEED`.

A child puts, leases, stores and closes tasks, and says so after each commit; it is killed and started anew until it is done. Each
start is audited: whatever was said is on disk, whole, and no task is nowhere or in two states. Prints what happened as JSON.
"""

import json
import os
import pathlib
import random
import signal
import sys

from beamline_side.spool import segments
from beamline_side.spool.sqlite_spool import HEAVY, Spool

TASKS, RESERVE = 1000, 1 << 20
CHILD = [signal.SIGCHLD]


def result(number: int) -> bytes:
    """Return what task `number` stores: some small, some large enough for a segment."""
    return number.to_bytes(4, "big") * (random.Random(number).choice((20, 200, HEAVY // 2)))


def key(number: int) -> str:
    return f"{number:06d}"


def audit(spool: Spool, said: set[str]) -> tuple[int, int]:
    """Compare a spool with what was said; return how many tasks were put and closed."""
    rows = {table: dict(spool.rows(table)) for table in ("cursor", "tasks", "payload", "closed")}
    put = int(rows["cursor"].get("cursor", b"0"))
    tasks, closed = set(rows["tasks"]), set(rows["closed"])
    assert not tasks & closed, "a task is open and closed"
    assert tasks | closed == {key(number) for number in range(put)}, "a task is nowhere"
    assert all(body == result(int(name)) for name, body in rows["payload"].items()), "a payload is not what was stored"
    assert set(rows["payload"]) == {name for name, body in rows["tasks"].items() if body == b"stored"}, "row and payload differ"
    for line in said:
        what, name = line.split()
        assert name in closed or (what != "closed" and name in tasks), f"{line} was said and is not so"
        assert what != "stored" or name in closed or rows["tasks"][name] == b"stored", f"{line} was said and is not so"
    return put, len(closed)


def live(path: pathlib.Path, said: set[str], voice: int, seed: int, most: int = TASKS) -> None:
    """Go on with the story from what is on disk, to its end."""
    spool = Spool(path, reserve=RESERVE)
    put, _ = audit(spool, said)
    chance = random.Random(seed)
    while True:
        tasks = dict(spool.rows("tasks"))
        lines = []
        for number in range(put, min(most, put + chance.randrange(1, 12))):
            spool.keep("tasks", key(number), b"ready")
            lines.append(f"put {key(number)}")
            put += 1
        spool.keep("cursor", "cursor", str(put).encode())
        for name, state in list(tasks.items())[: chance.randrange(1, 12)]:
            if state == b"ready":
                spool.keep("tasks", name, b"leased")
            elif state == b"leased":
                spool.keep("tasks", name, b"stored")
                spool.keep("payload", name, (result(int(name))[:8], result(int(name))[8:]))
                lines.append(f"stored {name}")
            else:
                spool.forget("tasks", name)
                spool.forget("payload", name)
                spool.keep("closed", name, b"")
                lines.append(f"closed {name}")
        spool.commit()
        os.write(voice, "".join(line + "\n" for line in lines).encode())
        if put == most and not tasks:
            spool.close()
            return


def once(path: pathlib.Path, said: set[str], lifetime: float) -> bool:
    """Let a child live for so many seconds (infinity: as long as it wants); return whether it came to the end."""
    ear, voice = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            live(path, said, voice, os.getpid())
            os._exit(0)
        finally:
            os._exit(1)
    os.close(voice)
    if lifetime < float("inf"):
        signal.sigtimedwait(CHILD, lifetime)
        os.kill(pid, signal.SIGKILL)
    with os.fdopen(ear) as file:
        said |= {line.strip() for line in file if line.endswith("\n")}
    _, status = os.waitpid(pid, 0)
    signal.sigtimedwait(CHILD, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "the child failed"
    return os.WIFEXITED(status)


def main(folder: pathlib.Path, kills: int, seed: int) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, CHILD)
    chance, done, stories = random.Random(seed), 0, 0
    while done < kills:
        path, said, over = folder / str(stories) / "story.sqlite", set[str](), False
        while not over:
            over = once(path, said, chance.uniform(0.0, 0.02) if done < kills else float("inf"))
            done += not over
        spool = Spool(path, reserve=RESERVE)
        assert audit(spool, said) == (TASKS, TASKS)
        spool.close()
        assert not any(segments.folder_of(path).iterdir()), "segments are left"
        stories += 1
    print(json.dumps({"kills": done, "stories": stories}))


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
