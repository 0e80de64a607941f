"""A real Slurm of one node, with munge, controller and compute daemon of its own, in a folder of its own.

usage: python -m tests.slurm.cluster COMMAND [ARGUMENT...]

Starts the cluster, runs the command with ``SLURM_CONF`` set, by which Slurm's commands and Snakemake find it, and stops
the cluster again. Needs the packages munge, slurmctld, slurmd and slurm-client of Debian or Ubuntu; as root it
limits memory by control groups where it can make them. Nothing outside the folder is changed: several may run at once,
beside a Slurm of the machine too.
"""

import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "sinfo", "srun", "scancel")
CPUS = 8
"""CPUs that the node claims, so that as many jobs run at once on a machine of two as well."""
MEMORY_MB = 64000
"""Memory that Slurm may give away: a job counts by what it asks for, which most do not use."""
CGROUPS = [Path("/sys/fs/cgroup") / controller for controller in ("memory", "freezer")]
DAEMON_TIME_LIMIT = 180.0

CONFIGURATION = """\
ClusterName=one
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
# A job that goes back to the queue waits there until its credential has expired, which else takes two minutes.
AuthInfo=socket={folder}/munge.socket,cred_expire=20
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SwitchType=switch/none
MpiDefault=none
{limits}
# The CPUs and the memory below are not those of this machine.
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
# Without a database there is no sacct; jobs are asked for by squeue.
AccountingStorageType=accounting_storage/none
# A node that went away is missed, and taken back, in seconds in place of minutes.
SlurmdTimeout=10
ReturnToService=2
KillWait=2
NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={memory} State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
LIMITS = {
    # As clusters do: the kernel counts a job's memory, and lets it have no more.
    "cgroup": """\
ProctrackType=proctrack/cgroup
TaskPlugin=task/cgroup
JobAcctGatherType=jobacct_gather/none""",
    # Where control groups cannot be made, in a container for example: memory is looked at once a second.
    "polling": """\
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill""",
}
COMMANDS = {
    # Snakemake's executor takes Slurm's variables out of a job's environment. Clusters do not need this one.
    "srun": """\
#!/bin/sh
SLURM_CONF={configuration} exec {program} "$@"
""",
    # Jobs get nothing of the environment that they are submitted in but the search path, so none can depend on more.
    "sbatch": """\
#!/bin/sh
for argument do
    shift
    [ "$argument" = --export=ALL ] && argument=--export=PATH
    set -- "$@" "$argument"
done
exec {program} "$@"
""",
}
"""Put before Slurm's own in the search path."""
CGROUP_CONFIGURATION = "CgroupPlugin=cgroup/v1\nConstrainRAMSpace=yes\n"


def what_is_missing() -> str:
    """Return why there can be no cluster here, or nothing."""
    missing = [program for program in PROGRAMS if _path_of(program) is None]
    return f"not installed: {', '.join(missing)} (packages munge, slurmctld, slurmd, slurm-client)" if missing else ""


def ways_to_limit() -> list[str]:
    """Return the ways in which memory can be limited here, the strict one first."""
    return [way for way in LIMITS if way != "cgroup" or all(os.access(group, os.W_OK) for group in CGROUPS)]


class Cluster:
    """A Slurm of one node.

    Parameters
    ----------
    folder : Path
        An empty folder for keys, configuration, state and logs, which every user can enter.
    limits : str
        How memory is limited, of `LIMITS`.
    """

    def __init__(self, folder: Path, limits: str) -> None:
        self.folder = folder
        self.node = f"one-{secrets.token_hex(4)}"  # Control groups are named by it, and must be no other cluster's.
        self.configuration = folder / "slurm.conf"
        commands = folder / "bin"
        path = f"{commands}:{os.environ.get('PATH', '')}"
        self.environment = {**os.environ, "PATH": path, "SLURM_CONF": str(self.configuration)}
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}
        for made in (folder / "state", folder / "spool", commands):
            made.mkdir()
        key = folder / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(secrets.token_bytes(1024))
        host = socket.gethostname().partition(".")[0]
        ports = _free_ports(2)
        text = CONFIGURATION.format(
            folder=folder,
            host=host,
            node=self.node,
            user=pwd.getpwuid(os.geteuid()).pw_name,
            controller_port=ports[0],
            node_port=ports[1],
            limits=LIMITS[limits],
            cpus=CPUS,
            memory=MEMORY_MB,
        )
        self.configuration.write_text(text)
        (folder / "cgroup.conf").write_text(CGROUP_CONFIGURATION)
        for name, script in COMMANDS.items():
            (commands / name).write_text(script.format(configuration=self.configuration, program=_path_of(name)))
            (commands / name).chmod(0o755)

    def start(self) -> None:
        """Start all daemons, and wait until jobs can run."""
        files = {"socket": "socket", "key-file": "key", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
        options = [f"--{option}={self.folder}/munge.{name}" for option, name in files.items()]
        self._launch("munged", "--foreground", *options)
        self._wait(lambda: (self.folder / "munge.socket").exists())
        self._launch("slurmctld", "-D")
        self.start_slurmd()

    def start_slurmd(self) -> None:
        """Start the compute daemon, and wait until its node takes jobs."""
        self._launch("slurmd", "-D", "-N", self.node)
        self.wait_for_node("idle", "mixed", "allocated")

    def kill_slurmd(self) -> None:
        """Kill the compute daemon; jobs that run go on, as after a crash of the daemon alone."""
        daemon = self._daemons.pop("slurmd")
        daemon.kill()
        daemon.wait()

    def cut_power(self) -> None:
        """Kill the compute daemon and everything that it started, as when a node loses its power."""
        self.kill_slurmd()
        self._kill_jobs()

    def stop(self) -> None:
        """Kill all jobs, stop the daemons, remove the control groups."""
        for name in reversed(list(self._daemons)):
            daemon = self._daemons.pop(name)
            daemon.terminate()
            daemon.wait(DAEMON_TIME_LIMIT)
        self._kill_jobs()
        for group in CGROUPS:
            for folder in sorted(group.glob(f"slurm_{self.node}/**/"), reverse=True):
                folder.rmdir()

    def wait_for_node(self, *states: str) -> None:
        """Wait until the controller says that the node is in one of the states."""
        command = ["sinfo", "--noheader", "--format", "%T"]

        def there() -> bool:
            found = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False).stdout
            return found.strip().rstrip("*") in states  # The asterisk: it does not answer.

        self._wait(there)

    def _launch(self, program: str, *options: str) -> None:
        path = _path_of(program)
        assert path is not None, what_is_missing()
        with (self.folder / f"{program}.out").open("ab") as output:
            # A session of its own: Ctrl-C is for the command, which cancels its jobs while there is a cluster to ask.
            self._daemons[program] = subprocess.Popen(
                [path, *options], env=self.environment, stdout=output, stderr=output, start_new_session=True
            )

    def _wait(self, ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + DAEMON_TIME_LIMIT
        while not ready():
            for program, daemon in self._daemons.items():
                if daemon.poll() is not None:
                    said = (self.folder / f"{program}.out").read_text()[-1000:]
                    raise RuntimeError(f"{program} ended with status {daemon.returncode}: {said}")
            if time.monotonic() > deadline:
                logs = "".join(path.read_text()[-2000:] for path in sorted(self.folder.glob("*.log")))
                raise RuntimeError(f"Slurm was not ready within {DAEMON_TIME_LIMIT:.0f} s; its logs end with:\n{logs}")
            time.sleep(0.1)

    def _kill_jobs(self) -> None:
        while processes := self._processes_of_jobs():
            for process in processes:
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            time.sleep(0.1)

    def _processes_of_jobs(self) -> list[int]:
        """Return what the compute daemon started: its helpers, by their name, and jobs, by their environment."""
        found = []
        ours = f"SLURM_CONF={self.configuration}".encode()
        for process in Path("/proc").glob("[0-9]*"):
            try:
                environment = (process / "environ").read_bytes().split(b"\0")
                helper = (process / "comm").read_text().strip() == "slurmstepd"
            except OSError:  # It ended, or is another user's.
                continue
            if ours in environment and (helper or any(part.startswith(b"SLURM_JOB_ID=") for part in environment)):
                found.append(int(process.name))
        return found


@contextmanager
def running(limits: str | None = None) -> Iterator[Cluster]:
    """Run a cluster for a while, with the strictest limits that there can be here, or the given ones."""
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="slurm-"))
        stack.callback(shutil.rmtree, folder)
        folder.chmod(0o755)  # munge refuses a socket that not everybody can reach.
        cluster = Cluster(folder, limits or ways_to_limit()[0])
        stack.callback(cluster.stop)
        cluster.start()
        yield cluster


def _path_of(program: str) -> str | None:
    """Return the path of a program; daemons are where the search path of users does not lead."""
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def main(command: Sequence[str]) -> int:
    """Run a command in a cluster and return its exit status."""
    missing = what_is_missing()
    if missing or not command:
        print(missing or "\n".join(str(__doc__).splitlines()[2:]), file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # The cluster is stopped then, too.
    with running() as cluster:
        return subprocess.run(command, env=cluster.environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
