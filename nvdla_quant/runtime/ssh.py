"""`nvdla_runtime` on a board, over OpenSSH: one connection for all commands and copies, host keys checked.

Every remote name is either made by us from letters that no shell reads, or quoted for the board's shell.
"""

import os
import re
import shlex
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from nvdla_quant.errors import ConfigError, DeviceLostError, ToolError
from nvdla_quant.programs import Finished, run
from nvdla_quant.runtime.base import DeviceRun
from nvdla_quant.runtime.local import DUMP

_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:%-]*")
_FOLDER = re.compile(r"/[A-Za-z0-9_./-]*")
_STATUS = re.compile(r"^nvdla-quant-status:(\d+)$", re.MULTILINE)
_PROCESS = "process.pid"
_CONNECTING = 30
"""Seconds for a connection, or for a command that does nothing long."""
_COPYING = 300
"""Seconds for one file."""


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
        self._folder = ""
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
        self._copy(source, f"{self._target}:{self._folder}/{source.name}")

    def run(self, arguments: Sequence[str]) -> DeviceRun:
        """See `Device.run`."""
        folder, library = shlex.quote(self._folder), shlex.quote(str(PurePosixPath(self._path).parent))
        command = (
            f"cd {folder} && rm -f {DUMP} && LD_LIBRARY_PATH={library}:$LD_LIBRARY_PATH "
            f"sh -c 'echo $$ > {_PROCESS}; exec \"$@\"' sh {shlex.join([self._path, *arguments])} 2>&1; "
            'status=$?; echo; echo "nvdla-quant-status:$status"'
        )
        finished = self._ssh(command, self.time_limit)
        if finished.timed_out:
            self._ask(f"kill -9 $(cat {folder}/{_PROCESS})", _CONNECTING)
            return DeviceRun(None, finished.text, None)
        found = _STATUS.findall(finished.text)
        if not found:
            raise DeviceLostError(f"{self._config['host']}: the connection ended during a run: {finished.last_line()}")
        return DeviceRun(int(found[-1]), finished.text, self._fetch_dump())

    def recover(self) -> None:
        """Connect again, in a new working folder; a board that starts anew gets ``reconnect_limit`` seconds for it."""
        self._disconnect()
        end = time.monotonic() + self._config["reconnect_limit"]
        while True:
            self._local.mkdir()
            try:
                return self._connect()
            except ToolError:
                self._disconnect()
                if time.monotonic() > end:
                    raise
                time.sleep(min(5, self._config["reconnect_limit"]))

    @property
    def _target(self) -> str:
        user, host = self._config.get("user"), self._config["host"]
        host = f"[{host}]" if ":" in host else host
        return host if user is None else f"{user}@{host}"

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
        pattern = f"{self._config.get('folder', '/tmp').rstrip('/')}/nvdla-quant.XXXXXX"
        finished = self._ssh(shlex.join(["mktemp", "-d", pattern]), _CONNECTING)
        made = finished.text.strip().splitlines()[-1:]
        if finished.status or not made or not _FOLDER.fullmatch(made[0]):
            raise ToolError(
                f"backends.nvdla_runtime.ssh: cannot work on {self._target}: {finished.last_line()}; `ssh "
                f"{self._target}` must log in by key, without a question (its host key in known_hosts)"
            )
        self._folder = made[0]

    def _disconnect(self) -> None:
        """Remove the folder on the board, if it answers, and close the connection; once is enough."""
        if (self._local / "c").exists():
            if self._folder:
                self._ssh(shlex.join(["rm", "-rf", "--", self._folder]), _CONNECTING)
            line = ["ssh", *self._options(), "-O", "exit", "--", self._target]
            run(line, folder=self._local, seconds=_CONNECTING, environment=os.environ)
        self._folder = ""
        if self._local.exists():  # It is gone already where the board did not come back.
            shutil.rmtree(self._local)

    def _ssh(self, command: str, seconds: float) -> Finished:
        """Run a command of the board's shell."""
        line = ["ssh", *self._options(), "--", self._target, command]
        return run(line, folder=self._local, seconds=seconds, environment=os.environ)

    def _ask(self, command: str, seconds: float) -> None:
        """Run a command that must work while the board is alive."""
        finished = self._ssh(command, seconds)
        if finished.timed_out or finished.status == 255:
            raise DeviceLostError(f"{self._config['host']}: does not answer any more: {finished.last_line()}")

    def _copy(self, source: Path | str, destination: Path | str) -> None:
        # A local name with a colon would be a host's; absolute paths are not.
        line = ["scp", "-q", *self._options(), "--", str(source), str(destination)]
        finished = run(line, folder=self._local, seconds=_COPYING, environment=os.environ)
        if finished.timed_out or finished.status:
            raise DeviceLostError(f"{self._config['host']}: cannot copy {source} to it: {finished.last_line()}")

    def _fetch_dump(self) -> bytes | None:
        finished = self._ssh(f"test -f {shlex.quote(self._folder)}/{DUMP}", _CONNECTING)
        if finished.timed_out or finished.status == 255:
            raise DeviceLostError(f"{self._config['host']}: does not answer any more: {finished.last_line()}")
        if finished.status:
            return None
        copy = self._local / DUMP
        self._copy(f"{self._target}:{self._folder}/{DUMP}", copy)
        content = copy.read_bytes()
        copy.unlink()
        return content
