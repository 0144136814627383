"""A real Slurm on this one machine: munged, slurmctld and several slurmd, without systemd, cgroups or database.

    python -m tests.slurm.cluster start FOLDER     prints `export SLURM_CONF=...` when every node is idle
    python -m tests.slurm.cluster stop FOLDER      ends exactly the daemons of that folder, by pid

It runs as whoever starts it. Started by root, everything belongs to root, except that jobs may be submitted by anybody on this
machine. Timers are short, so that a test sees in seconds what takes minutes at a site. Partitions: `cpu` (default), `gpu` (two
pretend GPUs a node), `low` (jobs there give way to `cpu`), `short` (one minute at most), and `apart`, one node more that is in no
other partition.
"""

import contextlib
import os
import pathlib
import pwd
import shutil
import signal
import subprocess
import sys

from beamtide import clock
from tests.ports import free_ports
from tests.waits import wait_until

PACKAGES = ("slurmctld", "slurmd", "slurm-client", "munge")
FOR_RANKS = "libpmix-dev"
"""By which this Slurm starts ranks of Open MPI: it loads libpmix.so. Without it only the tests of that are skipped."""
PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch", "squeue")
NODES, CPUS, MEMORY = 4, 8, 64000
PATIENCE = 30.0
CONF = """
ClusterName=beamtide
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={base}/munge/sock,cred_expire=5
CredType=cred/munge
StateSaveLocation={base}/state
SlurmdSpoolDir={base}/spool/%n
SlurmctldPidFile={base}/run/slurmctld.pid
SlurmdPidFile={base}/run/slurmd-%n.pid
SlurmctldLogFile={base}/log/slurmctld.log
SlurmdLogFile={base}/log/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=100
MpiDefault=none
ReturnToService=2
SlurmdParameters=config_overrides
TmpFS={base}/tmp/%n
GresTypes=gpu
SlurmctldTimeout=10
SlurmdTimeout=10
MessageTimeout=5
KillWait=3
MinJobAge=300
MaxArraySize=1001
MaxJobCount=5000
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_min_interval=0,sched_interval=2,bf_interval=1,default_queue_depth=1000
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobSubmitPlugins=lua
NodeName=node[1-{all}] NodeHostname=localhost NodeAddr=127.0.0.1 Port=[{first}-{last}] CPUs={cpus} RealMemory={mib} Gres=gpu:2
PartitionName=cpu Nodes=node[1-{nodes}] Default=YES MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
PartitionName=gpu Nodes=node[1-{nodes}] MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
PartitionName=low Nodes=node[1-{nodes}] MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=REQUEUE
PartitionName=short Nodes=node[1-{nodes}] MaxTime=1 State=UP PriorityTier=10 PreemptMode=OFF
PartitionName=apart Nodes=node{all} MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
"""
GRES = "AutoDetect=off\nNodeName=node[1-{all}] Name=gpu File=/dev/null\nNodeName=node[1-{all}] Name=gpu File=/dev/zero\n"


LUA = """
function slurm_job_submit(job, partitions, user)
  local flag = io.open("{base}/etc/limit")
  if flag == nil then return slurm.SUCCESS end
  flag:close()
  return slurm.ESLURM_ACCOUNTING_POLICY
end
function slurm_job_modify(job, record, partitions, user) return slurm.SUCCESS end
return slurm.SUCCESS
"""


class NoSlurm(RuntimeError):
    """There is no Slurm here, and none can be had; the sentence says why."""


class Cluster:
    """A Slurm in a folder."""

    def __init__(self, base: pathlib.Path, nodes: int = NODES) -> None:
        port = free_ports(nodes + 2)
        self.base, self.nodes = base, tuple(f"node{number}" for number in range(1, nodes + 2))
        self.conf = base / "etc/slurm.conf"
        self._values = {
            "base": base,
            "port": port,
            "first": port + 1,
            "last": port + nodes + 1,
            "user": pwd.getpwuid(os.getuid()).pw_name,
            "nodes": nodes,
            "all": nodes + 1,
            "cpus": CPUS,
            "mib": MEMORY,
        }

    @property
    def environment(self) -> dict[str, str]:
        """Where the commands find it."""
        return {**os.environ, "SLURM_CONF": str(self.conf)}

    def start(self) -> None:
        """Start all daemons, and wait until every node is idle."""
        for name in (
            "etc",
            "munge",
            "state",
            "run",
            "log",
            *(f"{kind}/{node}" for kind in ("spool", "tmp") for node in self.nodes),
        ):
            (self.base / name).mkdir(parents=True, exist_ok=True)
        self._write()
        try:
            self._munged()
            self.start_controller("-c")
            for node in self.nodes:
                self.start_node(node)
            wait_until(self.idle, f"all nodes idle; see {self.base}/log", PATIENCE)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End the daemons of this folder, by pid, frozen ones too."""
        names = [*(f"run/slurmd-{node}.pid" for node in self.nodes), "run/slurmctld.pid", "munge/pid"]
        pids = [pid for name in names if (pid := self.pid(name))]
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
                os.kill(pid, signal.SIGCONT)
        end = clock.monotonic() + 10
        while any(alive(pid) for pid in pids) and clock.monotonic() < end:
            clock.pause(0.05)
        for pid in filter(alive, pids):
            os.kill(pid, signal.SIGKILL)

    def start_controller(self, *words: str) -> None:
        """Start slurmctld; "-c" lets it forget what it knew."""
        self._daemon("slurmctld", *words)

    def start_node(self, node: str) -> None:
        """Start one slurmd."""
        self._daemon("slurmd", "-N", node, "-c")

    def pid(self, name: str) -> int:
        """Return the pid in a file of the folder, or 0 if that process is gone."""
        path = self.base / name
        pid = int(path.read_text() or 0) if path.exists() else 0
        return pid if pid and alive(pid) else 0

    def kill(self, daemon: str, number: signal.Signals) -> None:
        """Send a signal to "slurmctld" or "slurmd-node1"."""
        os.kill(self.pid(f"run/{daemon}.pid"), number)

    def run(self, *words: str, stdin: str = "") -> str:
        """Run one of Slurm's commands."""
        call = (f"/usr/bin/{words[0]}" if pathlib.Path(f"/usr/bin/{words[0]}").exists() else words[0], *words[1:])
        done = subprocess.run(call, input=stdin, env=self.environment, capture_output=True, text=True, check=False, timeout=60)
        if done.returncode:
            raise RuntimeError(f"{' '.join(words)}: {done.stderr.strip()}")
        return done.stdout

    def lacks(self, mpi: str) -> str:
        """Return why ranks cannot be started by `srun --mpi=…`, or ""."""
        try:
            self.run("srun", "-n1", f"--mpi={mpi}", "true")
        except RuntimeError as error:
            return str(error).splitlines()[0]
        return ""

    def idle(self) -> bool:
        """Whether all nodes are there and free."""
        try:
            return len(self.run("sinfo", "-h", "-N", "-p", "cpu,apart", "-t", "idle", "-o", "%N").split()) == len(self.nodes)
        except RuntimeError:
            return False

    def mend(self) -> None:
        """Bring every node back, whatever was done to it; a controller that was away may hold all of them for dead."""
        wait_until(lambda: not [self._help(node) for node in self._lame()], f"all nodes back; see {self.base}/log", 120)

    def _lame(self) -> list[str]:
        try:
            rows = [line.split() for line in self.run("sinfo", "-h", "-N", "-p", "cpu,apart", "-o", "%N %t").splitlines()]
        except RuntimeError:
            return list(self.nodes)
        return [node for node, state in rows if state not in ("idle", "mix", "alloc", "comp")]

    def _help(self, node: str) -> None:
        if not self.pid(f"run/slurmd-{node}.pid"):
            self.start_node(node)
        with contextlib.suppress(RuntimeError):  # there is nothing to resume on a node that only has not answered yet
            self.run("scontrol", "update", f"nodename={node}", "state=resume")

    def queue(self, *words: str) -> list[str]:
        """Return the living jobs, as "id state name comment"."""
        return self.run("squeue", "-h", "-r", "-o", "%i %T %j %k", *words).splitlines()

    def clear(self) -> None:
        """Cancel everything and wait until nothing is left."""
        self.run("scancel", f"--user={os.getuid()}")
        wait_until(lambda: not self.queue(), "an empty queue", 60)
        wait_until(self.idle, "all nodes idle", 60)

    def _write(self) -> None:
        self.conf.write_text(CONF.format(**self._values))
        (self.base / "etc/gres.conf").write_text(GRES.format(**self._values))
        (self.base / "etc/job_submit.lua").write_text(LUA.format(**self._values))
        major = int(
            subprocess.run(["slurmctld", "-V"], capture_output=True, text=True, check=True).stdout.split()[1].split(".")[0]
        )
        if major >= 24:  # looks for cgroups unless told not to; before, the word is not known
            (self.base / "etc/cgroup.conf").write_text("CgroupPlugin=disabled\n")
        key = self.base / "munge/key"
        if not key.exists():
            key.write_bytes(os.urandom(1024))
            key.chmod(0o400)

    def limit(self, on: bool) -> None:
        """Let slurmctld refuse every submission as beyond an association's limit (a job_submit script does), or no longer."""
        flag = self.base / "etc/limit"
        flag.touch() if on else flag.unlink(missing_ok=True)

    def _munged(self) -> None:
        words = {"key-file": "key", "socket": "sock", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
        self._daemon(
            "munged", "--force", "--num-threads=4", *(f"--{word}={self.base}/munge/{name}" for word, name in words.items())
        )

    def _daemon(self, *words: str) -> None:
        with (self.base / "log/start").open("ab") as log:
            done = subprocess.run(words, env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=False)
        if done.returncode:
            raise NoSlurm(f"{words[0]} does not start; see {self.base}/log")


def require() -> None:
    """Install Slurm's packages where that is allowed; NoSlurm if there is none after all."""
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    missing, may = [name for name in PROGRAMS if shutil.which(name) is None], not os.getuid() and shutil.which("apt-get")
    if missing and not may:
        raise NoSlurm(f"no {', '.join(missing)}, and only root on a Debian may install {' '.join(PACKAGES)}")
    if missing or (may and not list(pathlib.Path("/usr/lib").glob("*/pmix2/lib/libpmix.so"))):
        _install()
    if missing := [name for name in PROGRAMS if shutil.which(name) is None]:
        raise NoSlurm(f"no {', '.join(missing)}, also after `apt-get install {' '.join(PACKAGES)}`")


def _install() -> None:
    policy = pathlib.Path("/usr/sbin/policy-rc.d")
    ours = not policy.exists()
    if ours:  # packages would start their services; this file says no, and goes again
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
    try:
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for words in (("update",), PACKAGES, (FOR_RANKS,)):
            call = words if words[0] == "update" else ("install", "--yes", "--no-install-recommends", *words)
            done = subprocess.run(["apt-get", "-qq", *call], env=environment, capture_output=True, text=True, check=False)
            if done.returncode and words is PACKAGES:
                raise NoSlurm(f"apt-get cannot install {' '.join(PACKAGES)}: {done.stderr.strip().splitlines()[-1:]}")
    finally:
        if ours:
            policy.unlink()


def alive(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def main() -> None:
    """Start or stop one from a shell."""
    action, folder = sys.argv[1], pathlib.Path(sys.argv[2]).absolute()
    require()
    cluster = Cluster(folder)
    if action == "start":
        cluster.start()
        print(f"export SLURM_CONF={cluster.conf}")
    else:
        cluster.stop()


if __name__ == "__main__":
    main()
