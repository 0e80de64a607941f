"""Script rules as Snakemake runs them, with a stand-in for its object: outputs, logs, and how a mistake ends."""

import json
import os
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

CACHE = "TRT-8503-EntropyCalibration2\ndata: 3c010a14\nconv1: 3cc4351e\n"
"""Hexadecimal float32: 0.00787594 and 0.02395111."""


def execute(repository: Path, rule: str, log: Path, **parts: dict[str, object]) -> None:
    """Run the script of `rule` with input, output and params as given."""
    given = {key: SimpleNamespace(**value) for key, value in parts.items()}
    stand_in = SimpleNamespace(log=[str(log)], threads=1, **given)
    runpy.run_path(str(repository / "scripts" / f"{rule}.py"), init_globals={"snakemake": stand_in})


def test_convert_cache(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "calibration.cache").write_text(CACHE)
    paths = {"input": {"cache": str(tmp_path / "calibration.cache")}, "output": {"table": str(tmp_path / "raw.json")}}
    execute(repository, "convert_cache", tmp_path / "logs" / "log", **paths)
    table = json.loads((tmp_path / "raw.json").read_text())
    assert table["conv1"] == {"scale": pytest.approx(0.02395111, abs=1e-8), "min": 0, "max": 0, "offset": 0}


def test_a_mistake_ends_with_status_two_and_one_line_in_the_log(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "calibration.cache").write_text(CACHE + "conv1: 3cc4351e\n")
    paths = {"input": {"cache": str(tmp_path / "calibration.cache")}, "output": {"table": str(tmp_path / "raw.json")}}
    with pytest.raises(SystemExit) as caught:
        execute(repository, "convert_cache", tmp_path / "log", **paths)
    assert caught.value.code == 2
    last = (tmp_path / "log").read_text().splitlines()[-1]
    assert last.startswith("error: ")
    assert "'conv1'" in last
    assert not (tmp_path / "raw.json").exists()


def test_a_defect_keeps_its_traceback(repository: Path, tmp_path: Path) -> None:
    """What is no user's mistake must not pass for one."""
    with pytest.raises(AttributeError):
        execute(repository, "convert_cache", tmp_path / "log", input={}, output={})


def test_what_c_libraries_print_lands_in_the_log(repository: Path, tmp_path: Path) -> None:
    code = (
        "import os, sys; from nvdla_quant.jobs import logs\n"
        f"with logs.capture({str(tmp_path / 'log')!r}):\n"
        "    os.write(1, b'from below\\n'); print('from above'); os.system('echo from a child')\n"
        "print('afterwards')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=repository, capture_output=True, text=True, check=True)
    assert done.stdout == "afterwards\n"
    assert set((tmp_path / "log").read_text().splitlines()) == {"from above", "from a child", "from below"}


def test_a_job_that_is_told_to_end_takes_its_programs_along(repository: Path, tmp_path: Path) -> None:
    """They have sessions of their own, so that nothing else would end them: a platform would run on for ever."""
    code = (
        "import os, pathlib; from nvdla_quant.jobs import logs, programs\n"
        f"folder = pathlib.Path({str(tmp_path)!r})\n"
        "with logs.capture(folder / 'log'):\n"
        "    command = ['sh', '-c', 'echo $$ > started; mv started pid; exec sleep 600']\n"
        "    programs.run(command, folder=folder, seconds=600, environment=os.environ)\n"
    )
    job = subprocess.Popen([sys.executable, "-c", code], cwd=repository)
    pid = tmp_path / "pid"
    end = time.monotonic() + 60
    while not pid.exists() and time.monotonic() < end:
        time.sleep(0.05)
    child = int(pid.read_text())
    job.terminate()
    assert job.wait(timeout=60) == 128 + signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)
    assert (tmp_path / "log").read_text().splitlines()[-1].endswith("ERROR told to end by SIGTERM")
