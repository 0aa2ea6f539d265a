"""A real Slurm of one node on this machine's loopback, without accounting, with two pretended GPUs; for root alone."""

import shutil
import socket
import subprocess
import time
from contextlib import contextmanager, suppress
from pathlib import Path

CONF = Path("/etc/slurm/slurm.conf")
GRES = Path("/etc/slurm/gres.conf")
MUNGE_FOLDER = Path("/run/munge")
LONGEST_START_S = 60

SLURM_CONF = """\
ClusterName=edpipe
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
ReturnToService=2
MinJobAge={min_job_age}
KillWait=20
SchedulerParameters=sched_interval=5
SlurmdParameters=config_overrides
GresTypes=gpu
PreemptType=preempt/partition_prio
PreemptMode=CANCEL
NodeName={host} NodeAddr=127.0.0.1 CPUs=8 RealMemory=60000 Gres=gpu:2 State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP PriorityTier=1 OverTimeLimit=0
PartitionName=urgent Nodes={host} MaxTime=INFINITE State=UP PriorityTier=9
"""


def can_start():
    """Whether Slurm's daemons are installed and this is root, and no other Slurm is set up here."""
    import os

    is_free = not CONF.exists() or "ClusterName=edpipe\n" in CONF.read_text(encoding="utf-8")
    return os.getuid() == 0 and is_free and all(map(shutil.which, ("slurmctld", "slurmd", "munged")))


@contextmanager
def slurm(folder, min_job_age=300):
    """Starts the daemons, gives the name of the node, and ends what was started."""
    host = socket.gethostname().split(".")[0]
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True)
    for number in (0, 1):
        (folder / f"gpu{number}").touch()
    CONF.parent.mkdir(exist_ok=True)
    CONF.write_text(SLURM_CONF.format(host=host, folder=folder, min_job_age=min_job_age), encoding="utf-8")
    GRES.write_text(f"Name=gpu File={folder}/gpu[0-1]\n", encoding="utf-8")
    MUNGE_FOLDER.mkdir(exist_ok=True)
    shutil.chown(MUNGE_FOLDER, "munge", "munge")
    daemons = []
    try:
        for words in (
            ["runuser", "-u", "munge", "--", "munged", "--foreground", "--force"],
            ["slurmctld", "-D", "-i"],
            ["slurmd", "-D"],
        ):
            daemons.append(subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
            time.sleep(1)
        wait_until_ready(host)
        yield host
    finally:
        with suppress(subprocess.SubprocessError):
            subprocess.run(["scancel", "--user=root"], timeout=20, check=False)
        for daemon in reversed(daemons):
            daemon.terminate()
            try:
                daemon.wait(15)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        CONF.unlink()
        GRES.unlink()


def wait_until_ready(host):
    """Until the node takes jobs."""
    until_s = time.monotonic() + LONGEST_START_S
    while time.monotonic() < until_s:
        found = subprocess.run(["sinfo", "-h", "-o", "%T"], capture_output=True, text=True, check=False)
        if set(found.stdout.split()) & {"idle", "mixed", "allocated"}:
            return
        subprocess.run(["scontrol", "update", f"nodename={host}", "state=resume"], capture_output=True, check=False)
        time.sleep(1)
    raise RuntimeError(f"Slurm's node takes no jobs after {LONGEST_START_S} s: {found.stdout}{found.stderr}")
