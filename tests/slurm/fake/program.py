"""A Slurm in one file: copied under the names sbatch, squeue, scancel, sacct, sinfo and scontrol into a folder on PATH.

It runs jobs for real, as processes of this machine, and misbehaves as it is told to: the folder above holds `state.json`, and
`faults.json`, a list of [command, fault, argument] that are used up one by one. See `tests/slurm/fake/__init__.py`.
"""

import contextlib
import fcntl
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

ME = pathlib.Path(sys.argv[0]).name
HOME = pathlib.Path(sys.argv[0]).absolute().parent.parent
FIRST = {"next": 100, "jobs": {}, "max_array": 1001, "calls": []}
DOWN = "Unable to contact slurm controller (connect failure)"
FAILED = "sbatch: error: Batch job submission failed: "
REFUSED = {
    "qos": FAILED + "Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)",
    "down": FAILED + DOWN,
    "socket": FAILED + "Socket timed out on send/recv operation",
    "account": FAILED + "Invalid account or account/partition combination specified",
    "reservation": FAILED + "Requested reservation is invalid",
    "partition": FAILED + "Invalid partition name specified",
}
RUN = 'bash "$0" >>"$1" 2>&1; echo $? >"$2"'


@contextlib.contextmanager
def state():
    with (HOME / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        path = HOME / "state.json"
        now = json.loads(path.read_text()) if path.exists() else dict(FIRST)
        yield now
        (HOME / "new").write_text(json.dumps(now))
        (HOME / "new").rename(path)


def fault():
    with state():
        path = HOME / "faults.json"
        faults = json.loads(path.read_text()) if path.exists() else []
        for one in faults:
            if one[0] == ME:
                faults.remove(one)
                path.write_text(json.dumps(faults))
                return one[1], one[2]
    return "", None


def options():
    found, words = {}, []
    for word in sys.argv[1:]:
        name, _, value = word.partition("=")
        if word.startswith("--"):
            found[name[2:]] = value
        else:
            words.append(word)
    return found, words


def sbatch(given, _words, wrong, argument):
    script = sys.stdin.read()
    if wrong in REFUSED:
        raise SystemExit(REFUSED[wrong])
    count = int(given.get("array", "0-0").partition("-")[2]) + 1
    with state() as now:
        if count >= now["max_array"] and "array" in given:
            raise SystemExit(FAILED + "Invalid job array specification")
        if "test-only" in given:
            print("sbatch: Job 1 to start at 2026-01-01T00:00:00 using 1 processors on nodes node1", file=sys.stderr)
            return
        job, now["next"] = now["next"], now["next"] + 1
        for number in range(count):
            name = f"{job}_{number}" if "array" in given else str(job)
            if wrong != "vanish":
                now["jobs"][name] = {"options": given, "state": "PENDING", "reason": "Priority", "status": 0, "restarts": 0}
                (HOME / f"{name}.sh").write_text(script)
                if wrong == "held":
                    now["jobs"][name]["reason"] = "JobHeldUser"
                else:
                    start(name, now["jobs"][name])
    if wrong == "accepted, then silent":
        time.sleep(argument)
    print(f"{job};{given['clusters']}" if "clusters" in given else job)


def start(name, job):
    array, _, number = name.partition("_")
    log = job["options"]["output"].replace("%A", array).replace("%a", number).replace("%j", name)
    status = HOME / f"{name}.status.{job['restarts']}"
    kept = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}
    kept |= {"SLURM_JOB_ID": array, "SLURM_RESTART_COUNT": str(job["restarts"]), "SLURM_JOB_NAME": job["options"]["job-name"]}
    if number:
        kept |= {"SLURM_ARRAY_JOB_ID": array, "SLURM_ARRAY_TASK_ID": number}
    words = ["bash", "-c", RUN, str(HOME / f"{name}.sh"), log, str(status)]
    null = subprocess.DEVNULL
    process = subprocess.Popen(words, env=kept, stdin=null, stdout=null, stderr=null, start_new_session=True)
    job |= {"state": "RUNNING", "reason": "None", "pid": process.pid, "began": int(time.time())}


def refresh(now):
    for name, job in now["jobs"].items():
        status = HOME / f"{name}.status.{job['restarts']}"
        if job["state"] == "RUNNING" and status.exists() and status.read_text():
            code = int(status.read_text())
            job["status"] = (code - 128) if code > 128 else code << 8
            job["state"] = job.pop("leaving", "") or ("FAILED" if code else "COMPLETED")
            job["reason"] = "NonZeroExitCode" if job["state"] == "FAILED" else "None"


def squeue(given, _words, wrong, argument):
    if wrong == "down":
        raise SystemExit("slurm_load_jobs error: " + DOWN)
    if wrong == "empty":
        return
    with state() as now:
        refresh(now)
        lines = []
        for name, job in now["jobs"].items():
            if job["options"]["job-name"] not in given["name"].split(","):
                continue
            values = {
                "JobArrayID": name,
                "State": argument if wrong == "state" else job["state"],
                "RestartCnt": job["restarts"],
                "Reason": job["reason"],
                "exit_code": job["status"],
                "StartTime": job.get("began", "N/A"),
                "NodeList": "node1" if "began" in job else "",
                "Comment": job["options"].get("comment", "(null)"),
            }
            fields = [field.partition(":") for field in given["Format"].split(",")]
            lines.append("".join(f"{values[field]}{suffix}" for field, _, suffix in fields) + "\n")
    text = "".join(lines)
    sys.stdout.write(text[:-argument] if wrong == "truncated" else text)


def scancel(_given, words, _wrong, _argument):
    with state() as now:
        refresh(now)
        for word in words:
            for name, job in now["jobs"].items():
                if word in (name, name.partition("_")[0]):
                    if job["state"] == "RUNNING":
                        job["leaving"] = "CANCELLED"
                        for pid in children(job["pid"]):
                            os.kill(pid, signal.SIGTERM)
                    elif job["state"] == "PENDING":
                        job["state"] = "CANCELLED"


def children(parent):
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if int((entry / "stat").read_text().rpartition(")")[2].split()[1]) == parent:
                    found += [int(entry.name), *children(int(entry.name))]
    return found


def sacct(given, _words, wrong, _argument):
    if wrong == "no database":
        raise SystemExit("Slurm accounting storage is disabled")
    with state() as now:
        refresh(now)
        for name in given["jobs"].split(","):
            if name in now["jobs"]:
                job = now["jobs"][name]
                print(f"{name}|{job['state']}|{job['status'] >> 8}:{job['status'] & 127}")


def sinfo(_given, _words, _wrong, _argument):
    print("cpu|up|4|4|4000|gpu:2|end")


def scontrol(_given, words, _wrong, _argument):
    with state() as now:
        if words[:1] == ["requeue"]:  # what a preemption does: the same id runs again
            refresh(now)
            job = now["jobs"][words[1]]
            for pid in children(job["pid"]):
                os.kill(pid, signal.SIGKILL)
            job["restarts"] += 1
            start(words[1], job)
        else:
            print(f"MaxArraySize            = {now['max_array']}\nClusterName             = fake")


if __name__ == "__main__":
    with state() as now_:
        now_["calls"].append([ME, time.monotonic(), sys.argv[1:], sorted(os.environ)])
    wrong_, argument_ = fault()
    if wrong_ == "slow":
        time.sleep(argument_)
    if not re.fullmatch(r"sbatch|squeue|scancel|sacct|sinfo|scontrol", ME):
        raise SystemExit(f"{ME} is none of Slurm's commands")
    globals()[ME](*options(), wrong_, argument_)
