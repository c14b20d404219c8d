"""A Slurm of two nodes on this machine, each with two fake GPUs: no systemd, no cgroups, nothing outside its folder."""

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scancel", "scontrol")
NODES = ("node1", "node2")
LARGE = 3  # nodes of partition `large`, each with 8 GPUs and 64 cores: only defined, so their jobs wait and can be looked at
PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"

SLURM_CONF = """
ClusterName=local
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
CredType=cred/munge
SlurmctldPort={controller_port}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd-%n.log
SlurmdParameters=config_overrides
SwitchType=switch/none
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
GresTypes=gpu
ReturnToService=2
MinJobAge=3600
KillWait=5
SchedulerParameters=sched_interval=1,bf_interval=1
"""


def obstacle() -> str | None:
    """Why no Slurm can be started here, or None."""
    missing = [name for name in PROGRAMS if shutil.which(name, path=PATH) is None]
    if missing:
        return f"not installed: {', '.join(missing)} (apt-get install slurm-wlm munge)"
    if os.geteuid() != 0:
        return "munged and slurmd are started as root"
    return None


def free_port() -> int:
    """A TCP port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Cluster:
    """Starts on entry, is gone on exit; `environment` is what its clients need."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.host = socket.gethostname().split(".")[0]
        self.daemons: list[subprocess.Popen] = []
        self.environment = {
            **os.environ,
            "SLURM_CONF": str(folder / "slurm.conf"),
            "SLURM_GPU_CPUS": "1",
            "PROGRPO_DEVICE": "cpu",  # its GPUs are twins of /dev/null
            "PATH": f"{folder / 'bin'}:{PATH}",
        }

    def __enter__(self) -> "Cluster":
        for name in ("state", "spool", "log", "munge", "bin"):
            (self.folder / name).mkdir(parents=True)
        (self.folder / "munge").chmod(0o755)
        self._configure()
        self._start_munge()
        self._start(["slurmctld", "-D", "-c"])
        for node in NODES:
            self._start(["slurmd", "-D", "-N", node])
        self._wait_until_idle()
        return self

    def _configure(self) -> None:
        memory = int(0.9 * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**20)
        lines = [SLURM_CONF.format(host=self.host, folder=self.folder, controller_port=free_port())]
        gres = []
        for node in NODES:
            for number in range(2):
                os.mknod(self.folder / f"gpu-{node}-{number}", 0o020666, os.makedev(1, 3))  # twins of /dev/null
            gres.append(f"NodeName={node} Name=gpu Type=fake File={self.folder}/gpu-{node}-[0-1]")
            lines.append(
                f"NodeName={node} NodeHostname={self.host} NodeAddr=127.0.0.1 Port={free_port()}"
                f" CPUs=2 RealMemory={memory} Gres=gpu:fake:2 State=UNKNOWN"
            )
        large = f"large[1-{LARGE}]"
        gres.append(f"NodeName={large} Name=gpu Type=a100 Count=8")
        lines.append(
            f"NodeName={large} NodeHostname=nowhere NodeAddr=127.0.0.2 CPUs=64 RealMemory=512000 Gres=gpu:a100:8 State=UNKNOWN"
        )
        lines.append(f"PartitionName=main Nodes={','.join(NODES)} Default=YES MaxTime=INFINITE State=UP")
        lines.append(f"PartitionName=large Nodes={large} MaxTime=INFINITE State=UP")
        (self.folder / "slurm.conf").write_text("\n".join(lines) + "\n")
        (self.folder / "gres.conf").write_text("\n".join(gres) + "\n")
        # the jobstep executor drops SLURM_CONF before its inner srun; a real cluster has it in /etc/slurm
        wrapper = self.folder / "bin" / "srun"
        real = shutil.which("srun", path=PATH)
        wrapper.write_text(f'#!/bin/sh\nSLURM_CONF={self.folder}/slurm.conf exec {real} "$@"\n')
        wrapper.chmod(0o755)

    def _start_munge(self) -> None:
        munge = self.folder / "munge"
        key = munge / "key"
        key.touch(mode=0o600)
        key.write_bytes(os.urandom(1024))
        options = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
        self._start(["munged", "--foreground", "--force", *(f"--{o}={munge / f}" for o, f in options.items())])
        self._wait(lambda: (munge / "socket").exists(), "munged")

    def _start(self, command: list[str]) -> None:
        with (self.folder / "log" / f"{len(self.daemons)}-{command[0]}.out").open("wb") as log:
            daemon = subprocess.Popen(command, env=self.environment, stdout=log, stderr=log, start_new_session=True)
        self.daemons.append(daemon)

    def _wait_until_idle(self) -> None:
        self._wait(
            lambda: self.run("sinfo", "-h", "-p", "main", "-o", "%T", "-N").split() == ["idle"] * len(NODES), "Slurm"
        )

    def _wait(self, ready, what: str, seconds: float = 180) -> None:
        end = time.monotonic() + seconds
        while not ready():
            if time.monotonic() > end:
                raise RuntimeError(f"{what} did not start; see {self.folder}/log")
            time.sleep(0.2)

    def run(self, *command: str) -> str:
        """Standard output of a Slurm client."""
        return subprocess.run(command, env=self.environment, capture_output=True, text=True).stdout

    def jobs(self) -> list[int]:
        """Ids of the jobs that wait or run."""
        return [int(line) for line in self.run("squeue", "-h", "-o", "%A").split()]

    def states(self) -> list[str]:
        """State of every job that Slurm remembers, in the order of submission."""
        lines = self.run("squeue", "-h", "-t", "all", "-o", "%A %T").splitlines()
        return [state for _, state in sorted((int(line.split()[0]), line.split()[1]) for line in lines)]

    def __exit__(self, *error: object) -> None:
        for job in self.jobs():
            self.run("scancel", str(job))
        for daemon in reversed(self.daemons):
            daemon.terminate()
            try:
                daemon.wait(timeout=15)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        self.daemons.clear()
