"""A real SLURM of two nodes on this one machine: for tests of what no imitation would get right."""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

NEEDED = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "sinfo", "squeue", "scancel")
PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"
UNDER_WAY = {"PENDING", "RUNNING", "COMPLETING", "CONFIGURING"}
CONF = """\
ClusterName=lab
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={lab}/run/munge.sock,cred_expire=5
CredType=cred/munge
StateSaveLocation={lab}/state
SlurmdSpoolDir={lab}/spool-%n
SlurmctldPidFile={lab}/run/slurmctld.pid
SlurmdPidFile={lab}/run/slurmd-%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=5,bf_interval=5
KillWait=5
ReturnToService=2
SlurmdParameters=config_overrides
NodeName=node1 NodeHostname={host} NodeAddr=127.0.0.1 Port={node1} CPUs=2 RealMemory=2000
NodeName=node2 NodeHostname={host} NodeAddr=127.0.0.1 Port={node2} CPUs=2 RealMemory=2000
PartitionName=lab Nodes=ALL Default=YES MaxTime=INFINITE State=UP
PartitionName=small Nodes=node1 MaxTime=10 State=UP
"""


class Lab:
    """A cluster that runs.

    Attributes:
        environment: With which its commands find it.
    """

    def __init__(self, environment):
        self.environment = environment

    def __call__(self, *command, check=True):
        """What a command of SLURM prints."""
        ended = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False, timeout=60)
        assert not check or ended.returncode == 0, ended.stderr
        return ended.stdout.strip()

    def states(self, job):
        """Of a job, or of each task of an array: PENDING, RUNNING, COMPLETED, FAILED, ..."""
        shown = self("scontrol", "show", "job", "--oneliner", str(job))
        return [word.partition("=")[2] for word in shown.split() if word.startswith("JobState=")]

    def wait(self, job, *, until=None, seconds=600):
        """Waits until a job has ended, or is in one state, and gives the states of its tasks."""
        deadline = time.monotonic() + seconds
        while True:
            states = self.states(job)
            if (until in states) if until else not UNDER_WAY & set(states):
                return states
            if time.monotonic() > deadline:
                self("scancel", str(job))
                pytest.fail(f"job {job} is still {states} after {seconds} s")
            time.sleep(0.5)


def why_not():
    """Why there can be no lab here; `None` where there can."""
    missing = [name for name in NEEDED if shutil.which(name, path=PATH) is None]
    if missing:
        return f"{', '.join(missing)} not installed (apt-get install munge slurmctld slurmd slurm-client)"
    return None if os.geteuid() == 0 else "SLURM's daemons have to be started by root"


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def _daemon(command, environment, log):
    with log.open("ab") as output:
        process = subprocess.Popen(
            command, env=environment, stdout=output, stderr=output, stdin=subprocess.DEVNULL, start_new_session=True
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_for(ready, what, logs, *, seconds=60):
    deadline = time.monotonic() + seconds
    while not ready():
        said = "\n".join(log.read_text(errors="replace")[-800:] for log in sorted(logs.glob("*.log")))
        assert time.monotonic() < deadline, f"{what} did not start: {said}"
        time.sleep(0.2)


@contextmanager
def slurm_lab():
    """Starts the cluster, some seconds; its partitions are lab (node1 and node2) and small (node1, ten minutes)."""
    if (reason := why_not()) is not None:
        pytest.skip(reason)
    with ExitStack() as stack:
        # A socket's path must be short, and munged wants no folder above that others may write to, but for /tmp itself.
        lab = Path(tempfile.mkdtemp(prefix="lab-", dir="/tmp"))
        stack.callback(shutil.rmtree, lab, ignore_errors=True)
        lab.chmod(0o755)
        for name in ("run", "state", "log", "spool-node1", "spool-node2"):
            (lab / name).mkdir(mode=0o755)
        key = lab / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(os.urandom(1024))
        conf = lab / "slurm.conf"
        ports = {"port": _free_port(), "node1": _free_port(), "node2": _free_port()}
        conf.write_text(CONF.format(lab=lab, host=socket.gethostname().partition(".")[0], **ports))
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "SBATCH_"))}
        environment |= {"SLURM_CONF": str(conf), "PATH": PATH}
        run, log = lab / "run", lab / "log"
        munged = ["munged", "--foreground", "--force", f"--key-file={key}", f"--socket={run}/munge.sock"]
        munged += [f"--pid-file={run}/munged.pid", f"--log-file={log}/munged.log", f"--seed-file={run}/munged.seed"]
        stack.enter_context(_daemon(munged, environment, log / "munged-output.log"))
        _wait_for((run / "munge.sock").exists, "munged", log)
        stack.enter_context(_daemon(["slurmctld", "-D"], environment, log / "slurmctld.log"))
        for node in ("node1", "node2"):
            stack.enter_context(_daemon(["slurmd", "-D", "-N", node], environment, log / f"{node}.log"))
        cluster = Lab(environment)
        idle = ["sinfo", "--noheader", "--partition=lab", "--states=idle", "--format=%D"]
        _wait_for(lambda: cluster(*idle, check=False) == "2", "the cluster", log)
        stack.callback(_cancel_all, cluster)
        yield cluster


def _cancel_all(cluster):
    with suppress(subprocess.TimeoutExpired):
        cluster("scancel", "--user=root", check=False)
        for _ in range(60):
            if not cluster("squeue", "--noheader", check=False):
                break
            time.sleep(0.5)
