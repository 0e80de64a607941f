"""`nvdla_runtime` on a board, over OpenSSH: one connection for all commands and copies, host keys checked.

Every remote name is either made by us from letters that no shell reads, or quoted for the board's shell.
"""

import math
import os
import re
import shlex
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from nvdla_quant.errors import ConfigError, DeviceLostError, StuckError, ToolError
from nvdla_quant.jobs.programs import Finished, run
from nvdla_quant.runtime.base import DeviceRun
from nvdla_quant.runtime.local import DUMP
from nvdla_quant.runtime.lock import Waiting, lock_file, patience
from nvdla_quant.runtime.messages import said

_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:%-]*")
_FOLDER = re.compile(r"/[A-Za-z0-9_./-]*")
_STATUS = re.compile(r"^nvdla-quant-(status|late|busy):(.*)$", re.MULTILINE)
_CONNECTING = 30
"""Seconds for a connection, or for a command that does nothing long."""
_COPYING = 300
"""Seconds for one file."""
_LATE = 30
"""Seconds after the time limit at which the board should have ended the run, and said so."""
_POLL = 2
"""Seconds until a device that is in use is asked for again."""

_RUN = r"""
folder=$1 library=$2 lock=$3 limit=$4
shift 4
cd "$folder" || exit
rm -f output.dimg process.pid late
LD_LIBRARY_PATH=$library${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
export LD_LIBRARY_PATH
# Field 22 of a process is when it started: with its number and the boot, it is one process and no other.
started='started() { sed "s/.*) //" "/proc/$1/stat" 2>/dev/null | cut -d " " -f 20; }'
eval "$started"
busy() {
    now=$(date +%s)
    since=$(stat -c %Y "$1") || since=$now
    printf '\nnvdla-quant-busy:%s\n' $((now - since))
    exit
}
owner= boot=
if command -v flock >/dev/null; then
    [ -e "$lock" ] || (umask 0; : >"$lock")
    exec 9<"$lock"
    flock -n 9 || busy "$lock"
    touch -c "$lock"
else
    owner=$lock.owner boot=$(cat /proc/sys/kernel/random/boot_id)
    held=$(readlink "$owner")
    if [ -n "$held" ]; then
        process=${held#*:}
        [ "${held%%:*}" = "$boot" ] && [ "$(started "${process%:*}")" = "${process#*:}" ] && busy "$owner"
        # That process has ended. Of all who see this, one alone can make the folder, and so removes no other's link.
        mkdir "$owner.$held" 2>/dev/null && rm -f "$owner"
    fi
fi
export owner boot
sh -c "$started"'
if [ -n "$owner" ] && ! ln -s "$boot:$$:$(started $$)" "$owner"; then
    [ ! -L "$owner" ] || printf "\nnvdla-quant-busy:0\n"
    exit 1
fi
echo $$ >process.pid
exec "$@"
' sh "$@" 2>&1 </dev/null &
process=$!
# The program has the lock now, alone.
exec 9<&-
(
    exec >/dev/null 2>&1
    while [ "$limit" -gt 0 ] && kill -0 "$process"; do
        sleep 1
        limit=$((limit - 1))
    done
    if kill -0 "$process"; then
        : >late
        kill -9 "$process"
    fi
) &
wait "$process"
status=$?
case $(readlink "$owner") in
    "$boot:$(cat process.pid):"*) rm -f "$owner" ;;
esac
result=status
[ ! -e late ] || result=late
printf '\nnvdla-quant-%s:%s\n' "$result" "$status"
"""
"""What the board's shell does with: working folder, library folder, lock file, seconds, the program and its arguments.

Only what is in POSIX, busybox and dash. The lock is the program's and ends with it, also where the connection or this
machine has gone; a program that hangs is ended on the board, whoever is left to ask. Boards without ``flock`` get a
link that names its process in place of a lock of the kernel.
"""

_END = r"""
process=$(cat "$1/process.pid") || exit 0
[ "$(readlink "/proc/$process/cwd")" = "$1" ] || exit 0
kill -9 "$process"
left=10
while [ "$left" -gt 0 ] && [ "$(readlink "/proc/$process/cwd")" = "$1" ]; do
    sleep 1
    left=$((left - 1))
done
[ "$left" -gt 0 ] || echo "nvdla-quant-stuck:$process"
"""
"""End the program that a working folder has, if it is still that one: numbers of processes come again."""


class SshDevice:
    """A board.

    Parameters
    ----------
    path : str
        `nvdla_runtime` on the board; its folder holds ``libnvdla_runtime.so``.
    time_limit : float
        Seconds for one image.
    config : Mapping
        ``backends.nvdla_runtime.ssh``: host, user, port, identity_file, folder.

    Raises
    ------
    ConfigError
        A host or folder that could be taken for something else.
    """

    name = "ssh"

    def __init__(self, path: str, time_limit: float, config: Mapping[str, Any]) -> None:
        self._path, self.time_limit, self._config = path, time_limit, config
        self._folder = ""
        self._abandoned: list[str] = []
        for key, pattern in (("host", _HOST), ("user", _HOST), ("folder", _FOLDER)):
            if key in config and not pattern.fullmatch(config[key]):
                raise ConfigError(
                    f"backends.nvdla_runtime.ssh.{key}: {config[key]!r}, expected letters, digits and ._- alone"
                    + (", from the root" if key == "folder" else "")
                )

    def __enter__(self) -> "SshDevice":
        """Connect, and make a working folder on the board."""
        for tool in ("ssh", "scp"):
            if shutil.which(tool) is None:
                raise ToolError(f"{tool}: not on this machine; install OpenSSH's client")
        # A socket's path has at most 107 bytes.
        self._local = Path(tempfile.mkdtemp(prefix="nq-", dir="/tmp"))
        try:
            self._connect()
        except BaseException:
            self._disconnect()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        """Remove the folder on the board and close the connection."""
        self._disconnect()

    def put(self, source: Path) -> None:
        """See `Device.put`."""
        self._copy(source, self._remote(source.name))

    def run(self, arguments: Sequence[str]) -> DeviceRun:
        """See `Device.run`."""
        waiting = Waiting(f"{self._config['host']} ({lock_file('nvdla')})", patience(self.time_limit))
        while True:
            finished = self._run(arguments)
            found = _STATUS.findall(finished.text)
            if not found or found[0][0] != "busy":
                break
            waiting.again(float(found[0][1] or 0))
            time.sleep(_POLL)
        text = _STATUS.sub("", finished.text)
        if finished.timed_out:
            self._end(self._folder)
            return DeviceRun(None, text, None)
        if not found and finished.status in (0, 255):
            raise DeviceLostError(f"{self._config['host']}: the connection ended during a run: {said(text)}")
        if not found:
            raise ToolError(f"{self._config['host']}: cannot run there: {said(text)}")
        how, status = found[-1]
        return DeviceRun(None if how == "late" else int(status), text, self._fetch_dump())

    def _run(self, arguments: Sequence[str]) -> Finished:
        """Start the program on the board, where the device is free, and wait for it longer than the board does."""
        limit = math.ceil(self.time_limit)
        given = [
            self._folder,
            str(PurePosixPath(self._path).parent),
            str(lock_file("nvdla")),
            str(limit),
            self._path,
            *arguments,
        ]
        return self._ssh(shlex.join(["sh", "-c", _RUN, "sh", *given]), limit + _LATE)

    def _end(self, folder: str) -> None:
        """End what still runs in a working folder of the board.

        Raises
        ------
        StuckError
            It cannot be ended.
        """
        finished = self._ask(shlex.join(["sh", "-c", _END, "sh", folder]), _CONNECTING)
        if stuck := re.search(r"^nvdla-quant-stuck:(\d+)$", finished.text, re.MULTILINE):
            raise StuckError(
                f"{self._config['host']}: not done within {self.time_limit:g} s; killed, but process {stuck[1]} there "
                "does not end: the driver keeps it in an uninterruptible wait, and only that can let it go (reload the "
                "driver, or restart the board). Images that are done are kept, and the next start goes on"
            )

    def recover(self) -> None:
        """Connect again, in a new working folder; a board that starts anew gets ``reconnect_limit`` seconds for it."""
        self._disconnect()
        end = time.monotonic() + self._config["reconnect_limit"]
        while True:
            self._local.mkdir()
            try:
                self._connect()
                return self._tidy()
            except StuckError:
                raise
            except ToolError:
                self._disconnect()
                if time.monotonic() > end:
                    raise
                time.sleep(min(5, self._config["reconnect_limit"]))

    @property
    def _target(self) -> str:
        """Who and where, as ssh takes it; an IPv6 address has no brackets there, and needs them for scp."""
        user, host = self._config.get("user"), self._config["host"]
        return host if user is None else f"{user}@{host}"

    def _remote(self, name: str) -> str:
        """Return a file of the working folder as scp takes it."""
        host = self._config["host"]
        bracketed = f"[{host}]" if ":" in host else host
        return f"{self._target.removesuffix(host)}{bracketed}:{self._folder}/{name}"

    def _options(self) -> list[str]:
        """Return the options of ssh and scp: no questions, host keys checked, one connection for all."""
        settings = {
            "BatchMode": "yes",
            "StrictHostKeyChecking": "yes",
            "ControlMaster": "auto",
            "ControlPath": str(self._local / "c"),
            "ControlPersist": "120",
            "ConnectTimeout": str(_CONNECTING // 2),
            "ServerAliveInterval": "10",
            "ServerAliveCountMax": "3",
        }
        if "port" in self._config:
            settings["Port"] = str(self._config["port"])
        if "identity_file" in self._config:
            # Read by ssh as its configuration is: quoted, percent signs doubled.
            name = str(Path(self._config["identity_file"]).expanduser().absolute()).replace("%", "%%")
            settings["IdentityFile"] = f'"{name}"' if '"' not in name else name
            settings["IdentitiesOnly"] = "yes"
        return [part for key, value in settings.items() for part in ("-o", f"{key}={value}")]

    def _connect(self) -> None:
        """Open the connection and make the working folder; say what failed as a user can act on it."""
        folder = self._config.get("folder", "/tmp").rstrip("/")
        finished = self._ssh(shlex.join(["mktemp", "-d", f"{folder}/nvdla-quant.XXXXXX"]), _CONNECTING)
        made = finished.text.strip().splitlines()[-1:]
        if finished.status or not made or not _FOLDER.fullmatch(made[0]):
            advice = f"it must be able to make a folder in ssh.folder, {folder or '/'}"
            if finished.timed_out or finished.status == 255:
                login = shlex.join(self._login())
                advice = f"`{login}` must log in by key, without a question (its host key in known_hosts)"
            raise ToolError(
                f"backends.nvdla_runtime.ssh: cannot work on {self._target}: {finished.last_line()}; {advice}"
            )
        self._folder = made[0]

    def _tidy(self) -> None:
        """Remove what connections that broke left on the board, and end what runs there still and keeps the device."""
        while self._abandoned:
            self._end(self._abandoned[0])
            self._ask(shlex.join(["rm", "-rf", "--", self._abandoned[0]]), _CONNECTING)
            del self._abandoned[0]

    def _login(self) -> list[str]:
        """Return the command by which a user can try the connection."""
        port = ["-p", str(self._config["port"])] if "port" in self._config else []
        key = (
            ["-i", self._config["identity_file"], "-o", "IdentitiesOnly=yes"] if "identity_file" in self._config else []
        )
        return ["ssh", *port, *key, self._target]

    def _disconnect(self) -> None:
        """Remove the folder on the board, if it answers, and close the connection; once is enough."""
        removed = False
        if (self._local / "c").exists():
            if self._folder:
                removed = self._ssh(shlex.join(["rm", "-rf", "--", self._folder]), _CONNECTING).status == 0
            line = ["ssh", *self._options(), "-O", "exit", "--", self._target]
            run(line, folder=self._local, seconds=_CONNECTING, environment=os.environ)
        if self._folder and not removed:
            self._abandoned.append(self._folder)
        self._folder = ""
        if self._local.exists():  # It is gone already where the board did not come back.
            shutil.rmtree(self._local)

    def _ssh(self, command: str, seconds: float) -> Finished:
        """Run a command of the board's shell."""
        line = ["ssh", *self._options(), "--", self._target, command]
        return run(line, folder=self._local, seconds=seconds, environment=os.environ)

    def _ask(self, command: str, seconds: float) -> Finished:
        """Run a command that must work while the board is alive."""
        finished = self._ssh(command, seconds)
        if finished.timed_out or finished.status == 255:
            raise DeviceLostError(f"{self._config['host']}: does not answer any more: {finished.last_line()}")
        return finished

    def _copy(self, source: Path | str, destination: Path | str) -> None:
        # A local name with a colon would be a host's; absolute paths are not.
        line = ["scp", "-q", *self._options(), "--", str(source), str(destination)]
        finished = run(line, folder=self._local, seconds=_COPYING, environment=os.environ)
        if finished.timed_out or finished.status:
            raise DeviceLostError(f"{self._config['host']}: cannot copy {source} to it: {said(finished.text)}")

    def _fetch_dump(self) -> bytes | None:
        if self._ask(f"test -f {shlex.quote(self._folder)}/{DUMP}", _CONNECTING).status:
            return None
        copy = self._local / DUMP
        self._copy(self._remote(DUMP), copy)
        content = copy.read_bytes()
        copy.unlink()
        return content
