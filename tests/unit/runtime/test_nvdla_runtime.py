"""nvdla_runtime on each kind of device, against programs with the real ones' traps; the emulator computes for them."""

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nvdla_quant.compiler.compile import compile_network
from nvdla_quant.emulator.decode.program import decode
from nvdla_quant.emulator.run import run
from nvdla_quant.errors import ConfigError, DumpError, StuckError, ToolError
from nvdla_quant.hardware.targets import NV_FULL, NV_SMALL, Precision
from nvdla_quant.jobs.programs import Program
from nvdla_quant.jobs.programs import run as run_program
from nvdla_quant.loadable.reader import read_loadable
from nvdla_quant.loadable.writer import serialize_loadable
from nvdla_quant.network.graph import Convolution, Layer, Network, Tensor
from nvdla_quant.runtime.base import Device, RunResult, as_arrays
from nvdla_quant.runtime.dimg import write_dimg_text
from nvdla_quant.runtime.emulator import EmulatorRuntime
from nvdla_quant.runtime.local import LocalDevice
from nvdla_quant.runtime.lock import Waiting, alone
from nvdla_quant.runtime.nvdla_runtime import NvdlaRuntime
from nvdla_quant.runtime.spot_check import SpotCheck
from nvdla_quant.runtime.ssh import _END, SshDevice
from nvdla_quant.runtime.stock_images import StockFeeding
from nvdla_quant.runtime.virtual_platform import VirtualPlatform
from nvdla_quant.table.table import CalibrationTable
from tests.fakes import NASTY, install
from tests.networks.heads import alike_heads
from tests.sweeps import tiny_network
from tests.verified import compiled_case

pytestmark = pytest.mark.usefixtures("canary")

FEEDING = StockFeeding(Precision.INT8, 1, (0.0,), 1)
TABLE = CalibrationTable(dict.fromkeys(("data", "conv1", "relu1", "pool1", "ip1", "prob"), 0.05))


@cache
def tiny_loadable() -> bytes:
    """What every bench runs; a hundred tests need it, and it is made once."""
    return compile_network(tiny_network(0), TABLE, NV_SMALL, "int8", "per-filter").data


class Bench:
    """A loadable, inputs, the fake runtime in a folder that no shell would survive, and what it is told."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.monkeypatch = folder, monkeypatch
        self.loadable = folder / "made.nvdla"
        self.loadable.write_bytes(tiny_loadable())
        values = np.random.default_rng(0).integers(0, 128, (4, 1, 8, 8))
        values[:, 0, 0, 0] = [10, 20, 30, 40]
        self.inputs = np.zeros((4, 4, 8, 8), np.int8)
        self.inputs[:, :1] = values
        self.program = install("nvdla_runtime", folder / NASTY)
        self.calls, self.kept = folder / "calls.txt", folder / "kept"
        self.tell(FAKE_STATE=folder / "state", FAKE_CALLS=self.calls, FAKE_ANSWERS=folder / "answers")
        self.expected = self.answer(self.inputs)

    def tell(self, **variables: object) -> None:
        for name, value in variables.items():
            self.monkeypatch.setenv(name, str(value))

    def answer(self, inputs: np.ndarray) -> np.ndarray:
        """Lay ready what the fake runtime is to compute, and return it: the emulator's, by the digest of the image."""
        outputs = EmulatorRuntime(NV_SMALL).run(self.loadable, inputs).outputs["prob"]
        for pixels, output in zip(FEEDING.pixels(inputs), outputs, strict=True):
            name = hashlib.sha256(FEEDING.encode(pixels)).hexdigest()
            write_dimg_text(self.folder / "answers" / name, output)
        return outputs

    def run(self, device: Device) -> RunResult:
        return NvdlaRuntime(device, FEEDING, self.kept, "nv_small").run(self.loadable, self.inputs)

    def local(self, seconds: float = 30) -> LocalDevice:
        return LocalDevice(Program("backends.nvdla_runtime", str(self.program)), seconds)

    def runs(self) -> int:
        """How often the fake runtime ran."""
        return int((self.folder / "state").read_text())


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("nvdla_quant.runtime.lock.FOLDER", tmp_path / "locks")
    (tmp_path / "locks").mkdir()
    return Bench(tmp_path, monkeypatch)


def left_over(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(("nvdla-", "nvdla_"))]


# ---- this machine


def test_the_device_s_dumps_are_the_result(bench: Bench) -> None:
    result = bench.run(bench.local())
    assert np.array_equal(result.outputs["prob"], bench.expected)
    assert result.ran is not None
    assert result.ran.all()
    assert (result.before_softmax, result.fed) == (None, None), "PGM is exact, and the logits stay on the device"
    assert "local" in result.exactness
    assert json.loads(bench.calls.read_text().splitlines()[0]) == [
        *("--loadable", "loadable.nvdla", "--image", "image.pgm", "--rawdump")
    ]
    assert set(as_arrays(result, np.arange(4))) == {"output", "ran", "exactness", "backend"}
    assert left_over(bench.folder) == []


def test_several_outputs_are_refused_with_the_reason(bench: Bench) -> None:
    """Before anything runs: a dump of output 0 alone would be taken for the whole."""
    case = compiled_case(alike_heads(), NV_SMALL, Precision.INT8, None, images=1)
    bench.loadable.write_bytes(serialize_loadable(case.loadable))
    with pytest.raises(ToolError, match=r"outputs are near, far, expected exactly one: nvdla_runtime writes output 0"):
        bench.run(bench.local())
    assert not (bench.folder / "state").exists()


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        ("no-output", "exit status 0, but no output.dimg; it said: .*Test pass"),
        ("truncated", "output.dimg: (truncated raw dump|raw dump has)"),
        ("empty", "the raw dump is empty"),
        ("early-failure", "exit status 255 without `Test pass`"),
    ],
)
def test_a_run_that_lies_about_itself_is_found_out(bench: Bench, mode: str, message: str) -> None:
    """All images fail alike, so the first three end the job; nothing is kept."""
    bench.tell(FAKE_MODE=mode)
    with pytest.raises(ToolError, match=rf"the first 3 images all failed; the last: image 2, attempt 2: .*{message}"):
        bench.run(bench.local())
    assert bench.runs() == 6
    assert not list(bench.kept.rglob("*.dimg"))
    assert left_over(bench.folder) == []


@pytest.mark.parametrize(
    "line",
    [
        "(DLA) Error 0x0000000d: Error IOCTL failed (in nvdla_os.c, function NvDlaSubmit(), line 512)",
        "(DLA_TEST) Error 0x00000004: Mismatched width: 9 != 8 (in TestUtils.cpp, createImageCopy(), line 156)",
        "(DLA_TEST) Error 0x00000002: JPEG color space 3 not supported (in DlaImageUtils.cpp, line 250)",
        "Unknown image type: image.PGM",
        "Usage: nvdla_runtime [-options] --loadable <loadable_file>",
    ],
)
def test_a_pass_behind_an_error_is_none(bench: Bench, line: str) -> None:
    """It says `Test pass`, exits with 0 and leaves a whole dump after all of these."""
    bench.tell(FAKE_SAYS=line)
    with pytest.raises(ToolError, match=rf"first 3 images all failed.*exit status 0; it said: {re.escape(line)}"):
        bench.run(bench.local())
    assert not list(bench.kept.rglob("*.dimg"))
    assert left_over(bench.folder) == []


@pytest.mark.parametrize(
    "mode", ["no-output-once", "no-output-second", "truncated-once", "hang-second", "early-failure-once"]
)
def test_what_fails_once_is_tried_again(bench: Bench, mode: str) -> None:
    """A second run without a dump must not take the first one's."""
    bench.tell(FAKE_MODE=mode)
    result = bench.run(bench.local(seconds=1))
    assert np.array_equal(result.outputs["prob"], bench.expected)
    assert bench.runs() == 5


def test_a_failure_after_the_whole_dump_is_taken(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.tell(FAKE_MODE="late-failure")
    assert np.array_equal(bench.run(bench.local()).outputs["prob"], bench.expected)
    assert "exit status 139 after a whole dump" in caplog.text


def test_a_dead_image_costs_only_itself_and_time_is_limited(bench: Bench) -> None:
    """20 int8 steps come from pixel 40 (40 * 127 / 255 = 19.9): that image hangs whenever it comes."""
    bench.tell(FAKE_DEAD_PIXEL=40)
    start = time.monotonic()
    result = bench.run(bench.local(seconds=1))
    assert time.monotonic() - start < 20
    assert result.ran is not None
    assert result.ran.tolist() == [True, False, True, True]
    assert np.array_equal(result.outputs["prob"][result.ran], bench.expected[result.ran])
    assert not result.outputs["prob"][1].any()


def test_a_job_goes_on_where_it_was_and_only_for_the_same_question(bench: Bench) -> None:
    bench.tell(FAKE_DEAD_PIXEL=40)
    bench.run(bench.local(seconds=1))
    assert bench.runs() == 5
    bench.monkeypatch.delenv("FAKE_DEAD_PIXEL")
    result = bench.run(bench.local())
    assert bench.runs() == 6, "the one that was missing"
    assert result.ran is not None
    assert result.ran.all()
    assert bench.run(bench.local()).ran is not None
    assert bench.runs() == 6, "nothing was missing, so the device was not asked for"
    bench.inputs[0, 0, 3, 3] ^= 1
    bench.answer(bench.inputs)
    bench.run(bench.local())
    assert bench.runs() == 10, "other inputs, other results"


def colour_network() -> Network:
    """The tiny network with three channels."""
    network, rng = tiny_network(0), np.random.default_rng(3)
    first = Layer("conv1", Convolution(rng.normal(0, 0.3, (4, 3, 3, 3)).astype(np.float32), None), ("data",))
    data = Tensor("data", (3, 8, 8), "data")
    return replace(
        network, inputs=(data,), layers=(first, *network.layers[1:]), tensors={**network.tensors, "data": data}
    )


def test_colours_go_as_jpeg_and_what_it_decodes_to_is_recorded(bench: Bench) -> None:
    """So that the emulator can be asked the same question, as a spot check does."""
    bench.monkeypatch.delenv("FAKE_ANSWERS")
    bench.loadable.write_bytes(compile_network(colour_network(), TABLE, NV_SMALL, "int8", "per-filter").data)
    inputs = np.zeros((1, 4, 8, 8), np.int8)
    inputs[:, :3] = np.random.default_rng(4).integers(0, 128, (1, 3, 8, 8))
    runtime = NvdlaRuntime(bench.local(), StockFeeding(Precision.INT8, 3, (0.0,) * 3, 1), bench.kept, "nv_small")
    result = runtime.run(bench.loadable, inputs)
    assert json.loads(bench.calls.read_text().splitlines()[0])[3] == "image.jpg"
    assert result.fed is not None
    assert 0 < np.abs(result.fed.astype(int) - inputs).max() < 10
    emulator = EmulatorRuntime(NV_SMALL)
    assert np.array_equal(result.outputs["prob"], emulator.run(bench.loadable, result.fed).outputs["prob"])
    assert "images through JPEG (values fed are recorded)" in result.exactness
    assert np.array_equal(as_arrays(result, np.arange(1))["fed"], result.fed)
    checked = SpotCheck(runtime, emulator, 1).run(bench.loadable, inputs)
    assert "every bit the same" in checked.exactness


def test_fp16_is_fed_by_mean_and_normalize(bench: Bench) -> None:
    bench.monkeypatch.delenv("FAKE_ANSWERS")
    bench.loadable.write_bytes(compile_network(tiny_network(0), None, NV_FULL, "fp16", None).data)
    feeding = StockFeeding(Precision.FP16, 1, (33.0,), 64)
    pixels = np.random.default_rng(5).integers(0, 256, (1, 8, 8))
    inputs = np.zeros((1, 4, 8, 8), np.float16)
    inputs[:, 0] = (pixels - 33) / 64
    result = NvdlaRuntime(bench.local(), feeding, bench.kept, "nv_full").run(bench.loadable, inputs)
    assert json.loads(bench.calls.read_text().splitlines()[0])[-4:] == ["--mean", "33", "--normalize", "64"]
    assert np.array_equal(result.outputs["prob"], run(decode(read_loadable(bench.loadable)), inputs))


def test_inputs_of_another_size_are_refused_before_anything_runs(bench: Bench) -> None:
    bench.inputs = np.zeros((1, 4, 8, 9), np.int8)
    with pytest.raises(ToolError, match=r"reads 8 x 8 pixels, the images have \(8, 9\)"):
        bench.run(bench.local())


def test_a_missing_runtime_names_the_key(bench: Bench) -> None:
    device = LocalDevice(Program("backends.nvdla_runtime", "/nowhere/nvdla_runtime"), 5)
    with pytest.raises(ToolError, match=r"backends\.nvdla_runtime\.path: '/nowhere/nvdla_runtime' is not"):
        bench.run(device)


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        (
            "no-driver",
            r"libnvdla<1> failed to open dla device; libnvdla<1> Out of bounds .*\(is NVIDIA's kernel driver",
        ),
        (
            "task-timeout",
            r"NvDlaSubmit: Error IOCTL failed \(Connection timed out\); \(DLA_TEST\) Error .*->submit\(\)",
        ),
    ],
)
@pytest.mark.parametrize("where", ["local", "ssh", "virtual"])
def test_the_cause_is_quoted_everywhere(request: pytest.FixtureRequest, where: str, mode: str, message: str) -> None:
    fixture, device = {"local": ("bench", Bench.local), "ssh": ("board", ssh), "virtual": ("platform", virtual)}[where]
    bench = request.getfixturevalue(fixture)
    bench.tell(FAKE_MODE=mode)
    with pytest.raises(ToolError, match=rf"exit status 1; it said: {message}"):
        bench.run(device(bench))


# ---- a board of another configuration


@pytest.mark.parametrize("mode", ["hang", "task-timeout"])
def test_a_task_that_does_not_end_and_none_that_did_asks_for_the_board_s_configuration(bench: Bench, mode: str) -> None:
    """As a loadable for other hardware does; that costs one time limit."""
    bench.tell(FAKE_MODE=mode)
    question = r"image 0, attempt 1: .*is this board another configuration than nv_small\?"
    with pytest.raises(ToolError, match=question):
        bench.run(bench.local(seconds=1))
    assert bench.runs() == 1


@pytest.mark.parametrize("mode", ["hang-second", "task-timeout-second"])
def test_a_task_that_does_not_end_after_one_that_did_is_tried_again(bench: Bench, mode: str) -> None:
    bench.tell(FAKE_MODE=mode)
    assert np.array_equal(bench.run(bench.local(seconds=1)).outputs["prob"], bench.expected)
    assert bench.runs() == 5


def test_a_first_image_that_kills_the_device_comes_last_in_the_next_start(bench: Bench) -> None:
    """10 int8 steps come from pixel 20: it is the image, not the board, and the others show it."""
    bench.tell(FAKE_DEAD_PIXEL=20)
    with pytest.raises(ToolError, match=r"start again, with .*: this image then comes last"):
        bench.run(bench.local(seconds=1))
    result = bench.run(bench.local(seconds=1))
    assert result.ran is not None
    assert result.ran.tolist() == [False, True, True, True]
    assert np.array_equal(result.outputs["prob"][1:], bench.expected[1:])
    assert bench.runs() == 1 + 3 + 2


# ---- one run at a time


def job(bench: Bench, name: str, device: Device) -> RunResult:
    """Run as another job: with a folder of its own for what is done."""
    return NvdlaRuntime(device, FEEDING, bench.folder / name, "nv_small").run(bench.loadable, bench.inputs)


@pytest.mark.parametrize("kinds", [("local", "local"), ("ssh", "ssh"), ("local", "ssh")])
@pytest.mark.parametrize("flock", [True, False])
def test_jobs_at_once_take_turns_on_one_device(board: Bench, kinds: tuple[str, str], flock: bool) -> None:
    """Whatever started them. A board without `flock` has a lock of another kind."""
    if not flock:
        if "local" in kinds:
            pytest.skip("a machine that runs the workflow has locks")
        # A program's link goes a little after the program: who asks so soon takes it for one that a crash left.
        board.monkeypatch.setattr("nvdla_quant.runtime.ssh._POLL", 2)
        board.tell(FAKE_BOARD_PATH=without_flock(board.folder))
    board.tell(FAKE_DEVICE=board.folder / "hardware")
    made = {"local": board.local, "ssh": lambda: ssh(board)}
    with ThreadPoolExecutor() as pool:
        results = [pool.submit(job, board, f"kept{i}", made[kind]()) for i, kind in enumerate(kinds)]
        for result in results:
            assert np.array_equal(result.result().outputs["prob"], board.expected)
    assert board.runs() == 8, "none was spoilt and tried again"
    assert not list((board.folder / "locks").glob("*.owner*"))


def without_flock(folder: Path) -> Path:
    """Make a folder with what a small board has."""
    tools = folder / "board-bin"
    tools.mkdir()
    for name in ("sh", "cat", "cut", "date", "ln", "mkdir", "mktemp", "readlink", "rm", "sed", "sleep", "stat"):
        found = shutil.which(name)
        assert found is not None
        (tools / name).symlink_to(found)
    return tools


@pytest.mark.parametrize("kind", ["local", "ssh"])
def test_who_waits_says_so_and_starts_when_the_device_is_free(
    board: Bench, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    with ThreadPoolExecutor() as pool:
        with alone("nvdla", None):
            waiting = pool.submit(board.run, board.local() if kind == "local" else ssh(board))
            end = time.monotonic() + 20
            while "in use by another run" not in caplog.text and time.monotonic() < end:
                time.sleep(0.05)
            assert not (board.folder / "state").exists(), "nothing ran meanwhile"
        assert np.array_equal(waiting.result().outputs["prob"], board.expected)
    assert re.search(r"nvdla-quant-nvdla\.lock\): in use by another run; waiting for its end, \d s so far", caplog.text)


@pytest.mark.parametrize("kind", ["local", "ssh"])
def test_a_run_that_never_lets_go_is_not_waited_for_for_ever(
    board: Bench, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("local", "ssh"):
        monkeypatch.setattr(f"nvdla_quant.runtime.{module}.patience", lambda limit: 1)
    with alone("nvdla", None), pytest.raises(ToolError, match=r"in use for \d s by one run that is not this job's"):
        board.run(board.local() if kind == "local" else ssh(board))


def test_runs_that_hold_the_device_one_after_the_other_are_waited_for(tmp_path: Path) -> None:
    """Together longer than one alone would be waited for."""
    waiting = Waiting("a device", limit=0.2)
    for _ in range(5):
        time.sleep(0.1)
        waiting.again(held=0.1)
    with pytest.raises(ToolError, match="so it hangs"):
        waiting.again(held=0.3)


def test_a_lock_is_the_program_s_and_is_left_by_nobody_who_died(board: Bench) -> None:
    """A job that is killed leaves its program on the device, which keeps it until it ends, and no longer."""
    code = (
        "import subprocess, sys, time\nfrom pathlib import Path\nfrom nvdla_quant.runtime import lock\n"
        f"lock.FOLDER = Path({str(board.folder / 'locks')!r})\n"
        "with lock.alone('nvdla', None) as held:\n"
        "    subprocess.Popen(['sleep', '2'], pass_fds=[held], start_new_session=True)\n"
        "    print(flush=True)\n    time.sleep(600)\n"
    )
    killed = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert killed.stdout is not None
    killed.stdout.readline()
    start = time.monotonic()
    killed.kill()
    killed.wait()
    board.run(board.local())
    assert 1 < time.monotonic() - start < 20
    assert (board.folder / "locks" / "nvdla-quant-nvdla.lock").stat().st_mode & 0o777 == 0o666, "for all users"


def test_a_link_of_a_process_that_ended_locks_nothing(board: Bench) -> None:
    """Of another boot, or of a number that another process has now: a crash may leave one on boards without `flock`."""
    board.tell(FAKE_BOARD_PATH=without_flock(board.folder))
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    link = board.folder / "locks" / "nvdla-quant-nvdla.lock.owner"
    for number, owner in enumerate((f"{boot}:{os.getpid()}:1", f"another-boot:{os.getpid()}:{started(os.getpid())}")):
        link.symlink_to(owner)
        assert np.array_equal(job(board, f"kept{number}", ssh(board)).outputs["prob"], board.expected)
        assert not link.is_symlink()


def test_a_link_of_a_process_that_runs_locks(board: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nvdla_quant.runtime.ssh.patience", lambda limit: 1)
    board.tell(FAKE_BOARD_PATH=without_flock(board.folder))
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    link = board.folder / "locks" / "nvdla-quant-nvdla.lock.owner"
    link.symlink_to(f"{boot}:{os.getpid()}:{started(os.getpid())}")
    with pytest.raises(ToolError, match="in use for"):
        board.run(ssh(board))
    assert link.is_symlink()


def started(process: int) -> str:
    """Return when a process started, as the kernel writes it."""
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19]


# ---- what a driver does not let go


def test_a_process_that_survives_being_killed_ends_the_job(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here can make one, so the signal is lost; the job must not wait for it, and nothing runs any more."""
    monkeypatch.setattr("nvdla_quant.jobs.programs._GRACE", 0.5)
    killpg = os.killpg
    monkeypatch.setattr("os.killpg", lambda *_: None)
    bench.tell(FAKE_MODE="hang")
    start = time.monotonic()
    with pytest.raises(
        StuckError, match=r"not done within 1 s; killed, but process \d+, \d+ does not end: a driver"
    ) as error:
        bench.run(bench.local(seconds=1))
    assert time.monotonic() - start < 10
    assert bench.runs() == 1
    found = re.search(r"process (\d+)", str(error.value))
    assert found is not None
    killpg(os.getpgid(int(found[1])), signal.SIGKILL)


def test_children_that_nobody_waited_for_are_no_processes_that_survive(tmp_path: Path) -> None:
    """The killed program's own child has ended, and stays in the list of processes until its parent is gone."""
    code = "import subprocess, time; subprocess.Popen(['true']); time.sleep(600)"
    done = run_program([sys.executable, "-c", code], folder=tmp_path, seconds=1, environment=os.environ)
    assert (done.status, done.timed_out) == (137, True)


def test_a_process_that_survives_on_the_board_ends_the_job(board: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nvdla_quant.runtime.ssh._LATE", 1)
    monkeypatch.setattr("nvdla_quant.runtime.ssh._END", _END.replace("left=10", "left=1"))
    board.tell(FAKE_SSH="unkillable", FAKE_MODE="hang")
    with pytest.raises(StuckError, match=r"killed, but process \d+ there does not end: the driver keeps it") as error:
        board.run(ssh(board, seconds=1))
    found = re.search(r"process (\d+)", str(error.value))
    assert found is not None
    os.kill(int(found[1]), signal.SIGKILL)


def test_a_program_of_a_job_that_was_killed_ends_by_itself(tmp_path: Path) -> None:
    command = Program("backends.nvdla_runtime", "sleep").command(["600"], tmp_path, seconds=2.5)
    assert command[:4] == ["timeout", "-s", "KILL", "13"]


# ---- spot checks


class Answers:
    """A runtime that gives what it is told."""

    def __init__(self, values: list[float], exactness: str) -> None:
        self.name = "answers"
        self.result = RunResult({"y": np.float16(values).reshape(1, -1, 1, 1)}, None, "answers", exactness)

    def run(self, loadable: Path, inputs: np.ndarray) -> RunResult:
        return self.result


@pytest.mark.parametrize(
    ("device", "emulator"),
    [
        ([float("nan"), 1], [float("nan"), 1]),
        ([31744, 1], [float("nan"), 1]),
        ([0, 1], [32768, 1]),
        ([float("inf"), float("-inf")], [float("inf"), float("-inf")]),
        ([-0.0, 6e-8], [-0.0, 6e-8]),
    ],
)
def test_a_spot_check_takes_what_a_dump_does_not_tell_apart_as_the_same(
    device: list[float], emulator: list[float]
) -> None:
    """nvdla_runtime writes every NaN as 31744, and 32768 as 0."""
    check = SpotCheck(Answers(device, "device"), Answers(emulator, "bit-exact"), 1)
    assert "every bit the same" in check.run(Path("x"), np.zeros((1, 1, 1, 1), np.float16)).exactness


@pytest.mark.parametrize(
    ("device", "emulator"),
    [
        ([31744, 1], [31728, 1]),
        ([1, 1], [float("nan"), 1]),
        ([float("inf"), 1], [65504, 1]),
        ([0.0, 1], [-0.0, 1]),
        ([31744, 1], [float("inf"), 1]),
    ],
)
def test_a_spot_check_finds_other_bits(device: list[float], emulator: list[float]) -> None:
    check = SpotCheck(Answers(device, "device"), Answers(emulator, "bit-exact"), 1)
    with pytest.raises(DumpError, match="differ in 1 of 2 values of 1 images"):
        check.run(Path("x"), np.zeros((1, 1, 1, 1), np.float16))


def test_a_spot_check_against_a_fast_emulator_says_how_far_it_is_off() -> None:
    infinite = float("inf")
    check = SpotCheck(Answers([infinite, 1, 31744], "device"), Answers([infinite, 1.5, float("nan")], "fast"), 1)
    assert "largest difference 0.5" in check.run(Path("x"), np.zeros((1, 1, 1, 1), np.float16)).exactness


def test_a_spot_check_runs_few_images_and_returns_all(bench: Bench) -> None:
    runtime = SpotCheck(NvdlaRuntime(bench.local(), FEEDING, bench.kept, "nv_small"), EmulatorRuntime(NV_SMALL), 2)
    result = runtime.run(bench.loadable, bench.inputs)
    assert bench.runs() == 2
    assert np.array_equal(result.outputs["prob"], bench.expected)
    assert result.before_softmax is not None
    assert "2 of 4 images ran on nvdla_runtime (local), every bit the same" in result.exactness


def test_a_spot_check_finds_a_wrong_bit(bench: Bench) -> None:
    bench.tell(FAKE_MODE="wrong")
    runtime = SpotCheck(NvdlaRuntime(bench.local(), FEEDING, bench.kept, "nv_small"), EmulatorRuntime(NV_SMALL), 2)
    with pytest.raises(DumpError, match=r"differ in 2 of 12 values of 2 images; first: image 0, channel 0, row 0"):
        runtime.run(bench.loadable, bench.inputs)


# ---- a board over SSH


@pytest.fixture
def board(bench: Bench) -> Bench:
    bench.monkeypatch.setattr("nvdla_quant.runtime.ssh._POLL", 0.2)
    tools = bench.folder / "bin"
    for name in ("ssh", "scp"):
        install(name, tools)
    home = bench.folder / "board"
    home.mkdir()
    bench.tell(
        PATH=f"{tools}:{os.environ['PATH']}",
        FAKE_CALLS=bench.folder / "ssh.txt",
        FAKE_CONNECTIONS=bench.folder / "connections",
        TMPDIR=home,
    )
    return bench


def ssh(bench: Bench, seconds: float = 30, **config: Any) -> SshDevice:
    given = {"host": "board", "user": "root", "folder": str(bench.folder / "board"), "reconnect_limit": 0}
    return SshDevice(str(bench.program), seconds, {**given, **config})


def test_a_board_runs_over_one_checked_connection(board: Bench) -> None:
    result = board.run(ssh(board, port=2222, identity_file="/keys/a b%c"))
    assert np.array_equal(result.outputs["prob"], board.expected)
    assert (board.folder / "connections").read_text() == "1"
    calls = [json.loads(line) for line in (board.folder / "ssh.txt").read_text().splitlines()]
    first = next(call for call in calls if isinstance(call, dict) and "options" in call)
    assert first["options"]["Port"] == "2222"
    assert first["options"]["IdentityFile"] == '"/keys/a b%%c"'
    assert first["options"]["StrictHostKeyChecking"] == "yes"
    assert first["rest"][0] == "root@board"
    assert list((board.folder / "board").iterdir()) == [], "the working folder on the board is gone"


def test_an_unknown_host_key_is_an_error_that_says_what_to_do(board: Bench) -> None:
    board.tell(FAKE_SSH="unknown-host")
    with pytest.raises(
        ToolError, match=r"cannot work on root@board: Host key verification failed.*known_hosts"
    ) as error:
        board.run(ssh(board))
    assert "`ssh root@board` must log in" in str(error.value)
    with pytest.raises(ToolError) as error:
        board.run(ssh(board, port=2222, identity_file="/keys/a b"))
    assert "`ssh -p 2222 -i '/keys/a b' -o IdentitiesOnly=yes root@board` must log in" in str(error.value)


def test_a_folder_that_cannot_be_made_is_no_matter_of_logging_in(board: Bench) -> None:
    with pytest.raises(
        ToolError, match=r"cannot work on root@board: mktemp: .*; it must be able to make a folder in ssh"
    ):
        board.run(ssh(board, folder="/nowhere"))


def test_an_address_of_ipv6_has_brackets_for_scp_alone(board: Bench) -> None:
    assert np.array_equal(board.run(ssh(board, host="fe80::1%eth0")).outputs["prob"], board.expected)
    calls = [json.loads(line) for line in (board.folder / "ssh.txt").read_text().splitlines()]
    copied = [call["scp"][1] for call in calls if isinstance(call, dict) and "scp" in call]
    assert copied[0].startswith("root@[fe80::1%eth0]:/")
    assert {call["rest"][0] for call in calls if isinstance(call, dict) and "rest" in call} == {"root@fe80::1%eth0"}


def test_a_connection_that_breaks_is_made_again(board: Bench) -> None:
    board.tell(FAKE_SSH="lost-once")
    result = board.run(ssh(board))
    assert np.array_equal(result.outputs["prob"], board.expected)
    assert (board.folder / "connections").read_text() == "2"
    assert list((board.folder / "board").iterdir()) == []


def test_what_a_broken_connection_left_running_is_ended_and_its_folder_removed(board: Bench) -> None:
    """It would keep the device, and its folder would stay for ever."""
    board.tell(FAKE_SSH="lost-running", FAKE_MODE="hang-once")
    assert np.array_equal(board.run(ssh(board)).outputs["prob"], board.expected)
    assert (board.folder / "connections").read_text() == "2"
    assert list((board.folder / "board").iterdir()) == []


def test_what_hangs_on_the_board_is_killed_there(board: Bench) -> None:
    board.tell(FAKE_MODE="hang-second")
    result = board.run(ssh(board, seconds=1))
    assert np.array_equal(result.outputs["prob"], board.expected)
    assert "kill -9" in (board.folder / "ssh.txt").read_text()


@pytest.mark.parametrize(
    ("mode", "runs"), [("no-output-second", 5), ("truncated-once", 5), ("late-failure", 4), ("early-failure-once", 5)]
)
def test_a_runtime_that_fails_on_a_board_is_not_a_board_that_does(board: Bench, mode: str, runs: int) -> None:
    """Its exit status 255 is not ssh's."""
    board.tell(FAKE_MODE=mode)
    assert np.array_equal(board.run(ssh(board)).outputs["prob"], board.expected)
    assert board.runs() == runs
    assert (board.folder / "connections").read_text() == "1"
    assert list((board.folder / "board").iterdir()) == []


def test_half_a_dump_that_was_copied_is_not_taken(board: Bench) -> None:
    board.tell(FAKE_SSH="half-once")
    assert np.array_equal(board.run(ssh(board)).outputs["prob"], board.expected)
    assert (board.folder / "connections").read_text() == "2"


def test_a_board_that_does_not_come_back_ends_the_job_and_leaves_nothing(board: Bench) -> None:
    board.tell(FAKE_SSH="gone")
    with pytest.raises(ToolError, match=r"cannot work on root@board: ssh: connect to host board port 22: No route"):
        board.run(ssh(board))
    calls = [json.loads(line) for line in (board.folder / "ssh.txt").read_text().splitlines()]
    sockets = {Path(call["options"]["ControlPath"]) for call in calls if "options" in call}
    assert not any(socket.parent.exists() for socket in sockets)


def test_a_machine_without_ssh_says_what_to_install(bench: Bench) -> None:
    bench.tell(PATH=bench.folder)
    with pytest.raises(ToolError, match="ssh: not on this machine; install OpenSSH's client"):
        bench.run(ssh(bench))


@pytest.mark.parametrize(
    ("key", "value"), [("host", "-oProxyCommand=touch canary"), ("user", "a b"), ("folder", "/board/$(touch canary)")]
)
def test_names_that_ssh_or_a_shell_could_misread_are_refused(bench: Bench, key: str, value: str) -> None:
    with pytest.raises(ConfigError, match=rf"backends\.nvdla_runtime\.ssh\.{key}"):
        ssh(bench, **{key: value})


# ---- the virtual platform


@pytest.fixture
def platform(bench: Bench) -> Bench:
    pytest.importorskip("pexpect")
    files = bench.folder / "files"
    install("nvdla_runtime", files)
    for name in ("drm.ko", "opendla_2.ko", "libnvdla_runtime.so"):
        (files / name).touch()
    install("aarch64_toplevel", bench.folder / NASTY)
    bench.tell(FAKE_BOOTS=bench.folder / "boots", FAKE_MOUNT="/mnt/a b")
    return bench


def virtual(bench: Bench, seconds: float = 30, boot: float = 20) -> VirtualPlatform:
    config = {
        "path": str(bench.folder / NASTY / "aarch64_toplevel"),
        "config": "/usr/local/nvdla/aarch64_nvdla.lua",
        "files": str(bench.folder / "files"),
        "user": "root",
        "password": "nvdla",
        "mount_tag": "r",
        "mount_point": "/mnt/a b",
        "modules": {"nv_small": ["drm.ko", "opendla_2.ko"]},
        "boot_time_limit": boot,
    }
    return VirtualPlatform("nvdla_runtime", seconds, "nv_small", config)


@pytest.mark.parametrize("mode", ["", "noise"])
def test_many_images_run_in_one_boot_through_the_console(platform: Bench, mode: str) -> None:
    """Noise breaks both copies of every other answer, which is then asked for again after the time limit."""
    platform.tell(FAKE_VP=mode)
    result = platform.run(virtual(platform, seconds=1, boot=1))
    assert np.array_equal(result.outputs["prob"], platform.expected)
    assert (platform.folder / "boots").read_text() == "1"
    assert left_over(platform.folder) == []


@pytest.mark.parametrize("mode", ["panic-once", "vanish-second", "hang-second", "no-output-second"])
def test_a_platform_that_dies_is_booted_again(platform: Bench, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nvdla_quant.runtime.virtual_platform._ANSWER", 1)
    platform.tell(FAKE_MODE=mode)
    result = platform.run(virtual(platform, seconds=2))
    assert np.array_equal(result.outputs["prob"], platform.expected)
    assert (platform.folder / "boots").read_text() == ("1" if mode == "no-output-second" else "2")


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        ("no-login", r"expected its login prompt, but not within 1 s; it said: .*Booting Linux"),
        ("panic", r"expected its login prompt, but the kernel panicked; it said: "),
        ("ends", r"expected its login prompt, but it ended; it said: .*cannot find the kernel image"),
        ("no-mount", r"(?s)`mount -t 9p .* r '/mnt/a b'` ended with status 255: .*No such device"),
        ("no-module", r"(?s)`insmod ./drm.ko` ended with status 1: .*cannot insert"),
    ],
)
def test_a_platform_that_does_not_start_says_why(
    platform: Bench, mode: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nvdla_quant.runtime.virtual_platform._ANSWER", 1)
    platform.tell(FAKE_VP=mode)
    with pytest.raises(ToolError, match=message):
        platform.run(virtual(platform, boot=1))
    assert left_over(platform.folder) == []


def test_a_wrong_password_is_told_apart(platform: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nvdla_quant.runtime.virtual_platform._ANSWER", 1)
    platform.tell(FAKE_PASSWORD="another")
    with pytest.raises(ToolError, match=r"expected a shell after the password, but not within 1 s; .*Login incorrect"):
        platform.run(virtual(platform))


def test_a_platform_that_does_not_boot_again_ends_the_job_and_keeps_what_was_done(
    platform: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nvdla_quant.runtime.virtual_platform._ANSWER", 1)
    platform.tell(FAKE_VP="once", FAKE_MODE="panic-second")
    with pytest.raises(ToolError, match=r"expected its login prompt, but not within 1 s"):
        platform.run(virtual(platform, boot=1))
    assert (platform.folder / "boots").read_text() == "3", "twice more"
    assert [path.name for path in platform.kept.rglob("*.dimg")] == ["000000.dimg"]
    assert left_over(platform.folder) == []


def test_a_missing_file_of_the_platform_is_named(platform: Bench) -> None:
    (platform.folder / "files" / "opendla_2.ko").unlink()
    with pytest.raises(ToolError, match=r"virtual_platform\.files: no opendla_2\.ko in "):
        platform.run(virtual(platform))
    assert not (platform.folder / "boots").exists()
