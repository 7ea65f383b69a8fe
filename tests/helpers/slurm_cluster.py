"""A Slurm of one node (Debian's slurm-wlm and munge) in a temporary folder, for as long as a block lasts."""

import os
import shutil
import socket
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch")
# sbin is not on everybody's PATH.
PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"
CONF = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SchedulerParameters=sched_interval=1,batch_sched_delay=0
KillWait=1
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=1000 State=UNKNOWN
PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def why_not():
    """Why Slurm cannot be started here; None if it can."""
    missing = [name for name in PROGRAMS if shutil.which(name, path=PATH) is None]
    if missing:
        return f"Slurm needs {', '.join(missing)}: apt-get install slurm-wlm munge"
    return None if os.geteuid() == 0 else "Slurm's daemons are started as root"


@contextmanager
def slurm(folder):
    """Start munged, slurmctld and slurmd; yields the environment in which sbatch finds them.

    Raises:
        RuntimeError: the node does not come up in two minutes; has the ends of the logs.
    """
    folder = Path(folder)
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True)
    folder.chmod(0o755)
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    conf = folder / "slurm.conf"
    conf.write_text(CONF.format(host=socket.gethostname(), ports=_free_ports(2), folder=folder))
    env = {**os.environ, "PATH": PATH, "SLURM_CONF": str(conf)}
    daemons = []
    try:
        for command in (
            [
                "munged",
                "--foreground",
                "--force",
                "--key-file",
                key,
                "--socket",
                folder / "munge.socket",
                "--pid-file",
                folder / "munged.pid",
                "--log-file",
                folder / "munged.log",
                "--seed-file",
                folder / "munged.seed",
            ],
            ["slurmctld", "-D", "-f", conf],
            ["slurmd", "-D", "-f", conf, "-N", socket.gethostname()],
        ):
            with open(folder / f"{command[0]}.out", "w") as out:
                daemons.append(subprocess.Popen(command, env=env, stdout=out, stderr=out))
            if command[0] == "munged":
                _wait(lambda: (folder / "munge.socket").exists(), folder)
        _wait(lambda: _idle(env), folder)
        yield env
    finally:
        subprocess.run(["scancel", "--user", "root"], env=env, stderr=subprocess.DEVNULL, timeout=20)
        for daemon in reversed(daemons):
            daemon.terminate()
            try:
                daemon.wait(20)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()


def _idle(env):
    done = subprocess.run(["sinfo", "--noheader", "--format", "%T"], env=env, text=True, capture_output=True)
    return done.stdout.strip() == "idle"


def _wait(condition, folder):
    deadline = time.time() + 120
    while not condition():
        if time.time() > deadline:
            logs = sorted([*folder.glob("*.out"), *folder.glob("*.log")])
            raise RuntimeError(
                "Slurm does not start:\n" + "\n".join(f"---- {log.name}\n{log.read_text()[-1500:]}" for log in logs)
            )
        time.sleep(0.1)


def _free_ports(number):
    sockets = [socket.socket() for _ in range(number)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()
