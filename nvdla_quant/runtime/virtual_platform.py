"""`nvdla_runtime` on NVIDIA's virtual platform, driven through its console.

The platform boots Linux in an emulator beside a model of the hardware. Files go through a folder that both sides see
(9p: the folder that the platform is started in). Its console mixes what a command prints with the kernel's messages, a
fault of the model or the driver ends in a panic or in silence, and then only another boot helps.
"""

import contextlib
import re
import shlex
import shutil
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pexpect

from nvdla_quant.errors import DeviceLostError, ToolError
from nvdla_quant.jobs.programs import Program
from nvdla_quant.runtime.base import DeviceRun
from nvdla_quant.runtime.local import DUMP
from nvdla_quant.runtime.lock import alone
from nvdla_quant.runtime.messages import said

_DEAD = (r"Kernel panic - not syncing", r"Unable to handle kernel", r"Internal error: Oops")
_ANSWER = 20
"""Seconds in which a shell that is alive answers."""
_RUNTIME_FILES = ("libnvdla_runtime.so",)


class VirtualPlatform:
    """The virtual platform; one at a time on a machine, since it takes fixed network ports.

    Parameters
    ----------
    path : str
        Name of `nvdla_runtime` among the platform's `files`.
    time_limit : float
        Seconds for one image.
    target : str
        Hardware that the platform models; it decides which kernel modules are inserted.
    config : Mapping
        ``backends.nvdla_runtime.virtual_platform``, defaults filled.
    """

    name = "virtual-platform"

    def __init__(self, path: str, time_limit: float, target: str, config: Mapping[str, Any]) -> None:
        self._path, self.time_limit, self._config = path, time_limit, config
        named = {key: config[key] for key in ("path", "container", "launcher") if key in config}
        self._program = Program("backends.nvdla_runtime.virtual_platform", **named)
        self._modules = config["modules"][target]
        self._console: pexpect.spawn[str] | None = None

    def __enter__(self) -> "VirtualPlatform":
        """Boot it, as soon as no other one runs on this machine."""
        with contextlib.ExitStack() as stack:
            # A job keeps it for all its images, however many.
            stack.enter_context(alone("virtual-platform", None))
            self._share = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nvdla-vp-")))
            files = Path(self._config["files"])
            for name in (self._path, *_RUNTIME_FILES, *self._modules):
                if not (files / name).is_file():
                    raise ToolError(f"backends.nvdla_runtime.virtual_platform.files: no {name} in {files}")
                shutil.copy(files / name, self._share / Path(name).name)
            stack.callback(self._shut_down)
            self._boot()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        """Shut it down."""
        self._stack.close()

    def put(self, source: Path) -> None:
        """See `Device.put`."""
        shutil.copyfile(source, self._share / source.name)

    def run(self, arguments: Sequence[str]) -> DeviceRun:
        """See `Device.run`."""
        dump = self._share / DUMP
        dump.unlink(missing_ok=True)
        command = shlex.join([f"./{Path(self._path).name}", *arguments])
        try:
            status, text = self._ask(f"LD_LIBRARY_PATH=. {command} 2>&1; s=$?; sync; (exit $s)", self.time_limit)
        except _SilentError as error:
            return DeviceRun(None, str(error), None)
        return DeviceRun(status, text, dump.read_bytes() if dump.is_file() else None)

    def recover(self) -> None:
        """Boot again, and once more where that fails."""
        self._shut_down()
        try:
            self._boot()
        except ToolError:
            self._shut_down()
            self._boot()

    def _boot(self) -> None:
        """Start the platform, log in, mount the shared folder, insert the modules."""
        self._container = f"nvdla-quant-{uuid.uuid4().hex[:12]}"
        command = self._program.command(["-c", self._config["config"]], self._share, console=self._container)
        self._console = pexpect.spawn(
            command[0],
            command[1:],
            cwd=str(self._share),
            env=self._program.environment(),
            encoding="utf-8",
            codec_errors="replace",
            dimensions=(24, 400),
        )
        limit = self._config["boot_time_limit"]
        self._expect(r"login: ", limit, "its login prompt")
        self._console.sendline(self._config["user"])
        if self._expect(r"assword: |[#$] ", _ANSWER, "a password prompt") == "assword: ":
            self._console.sendline(self._config["password"])
            self._expect(r"[#$] ", _ANSWER, "a shell after the password")
        mount = ["mount", "-t", "9p", "-o", "trans=virtio", self._config["mount_tag"], self._config["mount_point"]]
        steps = ["stty -echo; dmesg -n 1; true", shlex.join(mount), shlex.join(["cd", self._config["mount_point"]])]
        steps += [shlex.join(["insmod", f"./{Path(name).name}"]) for name in self._modules]
        for step in steps:
            try:
                status, text = self._ask(step, limit)
            except (DeviceLostError, _SilentError) as error:
                raise ToolError(f"virtual platform: `{step}` did not end: {error}") from error
            if status:
                raise ToolError(f"virtual platform: `{step}` ended with status {status}: {text.strip()[-300:]}")

    def _shut_down(self) -> None:
        """End the emulator; its disk is not kept, so there is nothing to save."""
        if self._console is not None:
            try:
                self._console.close(force=True)
            except pexpect.ExceptionPexpect as error:
                raise ToolError(f"virtual platform: killed, but it does not end ({error}); end it by hand") from error
            finally:
                self._program.stop(self._container)
            self._console = None

    def _expect(self, pattern: str, seconds: float, what: str) -> str:
        """Wait for `pattern` while booting, and return what matched."""
        assert self._console is not None
        patterns = [pattern, pexpect.EOF, pexpect.TIMEOUT, *_DEAD]
        index = self._console.expect(patterns, timeout=seconds)
        if index == 2:
            # The kernel may have written into the prompt: a line makes another.
            self._console.sendline("")
            index = self._console.expect(patterns, timeout=_ANSWER)
        if index:
            printed = str(self._console.before)[-300:].strip()
            how = {1: "it ended", 2: f"not within {seconds:g} s"}.get(index, "the kernel panicked")
            raise ToolError(
                f"virtual platform: expected {what}, but {how}; it said: {printed!r}. Start it by hand to see more: "
                f"{self._config['path']} -c {self._config['config']}"
            )
        return str(self._console.after)

    def _ask(self, command: str, seconds: float) -> tuple[int, str]:
        """Run a command of the platform's shell; return its status and what was on the console meanwhile.

        The status is printed twice, since the kernel may print in between, and asked for once more before the shell is
        taken to be dead.
        """
        assert self._console is not None
        nonce = uuid.uuid4().hex
        # What is typed comes back as an echo: it must not look like the answer.
        answer = f"echo; echo @{nonce}:$status@; echo @{nonce}:$status@"
        marker = rf"@{nonce}:(\d+)@"
        patterns = [marker, pexpect.TIMEOUT, pexpect.EOF, *_DEAD]
        self._console.sendline(f"{command}\nstatus=$?\n{answer}")
        index = self._console.expect(patterns, timeout=seconds)
        text = str(self._console.before)
        if index == 1:
            self._console.sendline(answer)
            index = self._console.expect(patterns, timeout=_ANSWER)
        if index == 1:
            raise _SilentError(text)
        if index:
            raise DeviceLostError(f"virtual platform: {'it ended' if index == 2 else 'kernel panic'}: {said(text)}")
        assert isinstance(self._console.match, re.Match)
        return int(self._console.match[1]), text


class _SilentError(Exception):
    """The shell does not answer: what runs hangs."""
