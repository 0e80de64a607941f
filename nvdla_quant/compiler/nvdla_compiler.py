"""NVIDIA's `nvdla_compiler` as a backend: the same network and table in, its loadable out, its traps disarmed.

The compiler answers little: exit status 0 with its usage text, with a loadable of uninitialised parameters, or without
any; an abort that does not say which entry is missing; options with other defaults than its help states, and a table
whose path it turns to lower case. So it runs in a folder of its own on files of fixed lower-case names, with every
option given, under a time limit, and status, log and output are checked before anything is believed.
"""

import re
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nvdla_quant.errors import CompileError, LoadableError
from nvdla_quant.hardware.targets import NVIDIA_COMPILER_TARGETS, Precision, QuantizationMode, Target
from nvdla_quant.jobs.programs import Finished, Program, run
from nvdla_quant.loadable.describe import describe
from nvdla_quant.loadable.reader import parse_loadable
from nvdla_quant.loadable.records import PixelFormat
from nvdla_quant.network.caffe.writer import write_caffemodel, write_prototxt
from nvdla_quant.network.graph import Network
from nvdla_quant.support.miscompiles import check_nvdla_compiler
from nvdla_quant.table.consistency import check_complete
from nvdla_quant.table.table import CalibrationTable, write_table

NVDLA_COMPILER = "nvdla_compiler"
"""Name of this compiler in the configuration and in reports."""

_EXPECTED = re.compile(r"Error 0x00000002: Don't support 0 \(in engine-ast/ConvCoreNode\.cpp, .*tryToMergeWithScaleOp")
"""An int8 image convolution was not merged with the scale behind it: right where `miscompiles` found no fault."""

_MISTAKES = (
    re.compile(r"\(DLA\) Error 0x"),
    re.compile(r"Invalid target config"),
    re.compile(r"could not parse layer type|moving average is zero"),
    re.compile(r"Unrecognized compute precision"),
    re.compile(r"unknown argument"),
    re.compile(r"^Usage:"),
    re.compile(r"Truncate too high|Scale value is 0 for"),
    re.compile(r"Activation type not supported|Empty INT8 \w+ LUT"),
    re.compile(r"FIXME: "),
    re.compile(r"Assertion .* failed"),
)
"""Lines after which a loadable is wrong or absent, whatever the exit status."""

_KILLED = 137
"""Exit status of what SIGKILL ended: by ``timeout`` within Docker."""

_STATUSES = {
    1: "it does not know an option; is this nvdla_compiler of nvdla/sw 1.2?",
    134: "it aborted on an assertion, mostly on an entry that the table lacks",
    136: "it divided by zero, mostly on a pooling window beyond 8",
    139: "it read memory that it does not own",
}


@dataclass(frozen=True)
class NvdlaCompiler:
    """How the compiler is started.

    Attributes
    ----------
    program : Program
        Where it is.
    time_limit : float
        Seconds after which it is killed; some networks make it run for ever.
    profile : str
        ``fast-math``, ``performance``, ``default`` or ``basic``.
    informat : str
        ``nhwc`` (the input is an image of four channels) or ``nchw`` (a feature cube).
    """

    program: Program
    time_limit: float = 600
    profile: str = "fast-math"
    informat: str = "nhwc"

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "NvdlaCompiler":
        """Return what ``backends.nvdla_compiler`` of the configuration says."""
        named = {key: config[key] for key in ("path", "container", "launcher") if key in config}
        rest = {key: config[key] for key in ("time_limit", "profile", "informat") if key in config}
        return cls(Program("backends.nvdla_compiler", **named), **rest)

    @property
    def _name(self) -> str:
        return f"{NVDLA_COMPILER} ({self.program.container or self.program.path})"

    def options(self, target: Target, precision: Precision, mode: QuantizationMode | None) -> list[str]:
        """Return the options, each with its value: no default of the compiler is relied on."""
        options = ["--prototxt", "deploy.prototxt", "--caffemodel", "weights.caffemodel", "-o", "./"]
        options += ["--profile", self.profile, "--cprecision", str(precision), "--configtarget", target.name]
        options += ["--informat", self.informat, "--batch", "1"]
        if precision is Precision.INT8:
            options += ["--quantizationMode", str(mode), "--calibtable", "table.json"]
        return options

    def compile(
        self,
        network: Network,
        table: CalibrationTable | None,
        target: Target,
        precision: Precision | str,
        mode: QuantizationMode | str | None,
    ) -> tuple[bytes, dict[str, Any]]:
        """Compile `network`.

        Parameters
        ----------
        network : Network
            As prepared, with its weights.
        table : CalibrationTable or None
            Scales by layer; None in fp16.
        target, precision, mode
            What it is compiled for; `mode` is None in fp16.

        Returns
        -------
        bytes
            The loadable.
        dict
            What JSON can hold: compiler, options, digests of the binary, findings of the log, what the loadable holds.

        Raises
        ------
        CompileError
            The compiler is known to make something wrong of this, or did not make a sound loadable; the message says
            which, with what it printed.
        TableError
            An entry is missing; the compiler would abort without saying which.
        ToolError
            The compiler is not there.
        """
        if target not in NVIDIA_COMPILER_TARGETS:
            known = ", ".join(one.name for one in NVIDIA_COMPILER_TARGETS)
            raise CompileError(
                f"{NVDLA_COMPILER} does not know the target {target.name}, expected one of {known}; compile with the "
                "builtin compiler"
            )
        precision = Precision(precision)
        mode = None if mode is None else QuantizationMode(mode)
        findings = check_nvdla_compiler(network, target, precision, mode, profile=self.profile, informat=self.informat)
        if wrong := [finding for finding in findings if finding.severity == "error"]:
            each = "; ".join(
                f"{f.layer or network.name} [{f.rule}]: {f.message}" + (f" ({f.rewrite})" if f.rewrite else "")
                for f in wrong
            )
            raise CompileError(f"{NVDLA_COMPILER} is known to miscompile this network: {each}")
        if precision is Precision.INT8:
            if table is None or mode is None:
                raise CompileError(f"{NVDLA_COMPILER}: int8 needs a calibration table and a quantization mode")
            check_complete(network, table)
        options = self.options(target, precision, mode)
        with tempfile.TemporaryDirectory(prefix="nvdla-compiler-") as name:
            folder = Path(name)
            write_prototxt(network, folder / "deploy.prototxt")
            write_caffemodel(network, folder / "weights.caffemodel")
            if table is not None:
                write_table(table, folder / "table.json")
            digests = self.program.digests(folder)
            finished = run(
                self.program.command(options, folder, seconds=self.time_limit),
                folder=folder,
                seconds=self.time_limit + (30 if self.program.container else 0),
                environment=self.program.environment(),
            )
            print(finished.text, end="")
            data = self._loadable(finished, folder)
        description = self._check(data, target, precision)
        report = {
            "compiler": NVDLA_COMPILER,
            "version": f"loadable format {description['version']}",
            "container": self.program.container,
            "sha256": digests,
            "options": options,
            "target": target.name,
            "precision": str(precision),
            "mode": None if mode is None else str(mode),
            "log": [line for line in finished.text.splitlines() if _EXPECTED.search(line)],
            "warnings": [asdict(finding) for finding in findings],
            "units": dict(sorted(Counter(operation["unit"] for operation in description["operations"]).items())),
            "loadable": description,
        }
        return data, report

    def _loadable(self, finished: Finished, folder: Path) -> bytes:
        """Return the bytes that the compiler wrote, after status and log were read."""
        name = self._name
        if finished.timed_out or (
            self.program.launcher == "docker" and self.program.container and finished.status == 137
        ):
            raise CompileError(
                f"{name}: killed after {self.time_limit:g} s; it runs for ever on some networks. Its last line: "
                f"{finished.last_line()}. Raise backends.nvdla_compiler.time_limit if the network is just large"
            )
        mistakes = [
            line.strip()
            for line in finished.text.splitlines()
            if any(pattern.search(line) for pattern in _MISTAKES) and not _EXPECTED.search(line)
        ]
        if finished.status or mistakes:
            why = f" ({_STATUSES[finished.status]})" if finished.status in _STATUSES else ""
            said = "; ".join(mistakes[:3]) or finished.last_line()
            raise CompileError(f"{name}: exit status {finished.status}{why}; it said: {said}")
        expected = folder / f"{self.profile}.nvdla"
        found = sorted(path.name for path in folder.glob("*.nvdla"))
        if found != [expected.name]:
            raise CompileError(
                f"{name}: exit status 0, but it wrote {', '.join(found) or 'no loadable'}, expected {expected.name}; "
                f"its last line: {finished.last_line()}"
            )
        return expected.read_bytes()

    def _check(self, data: bytes, target: Target, precision: Precision) -> dict[str, Any]:
        """Refuse a loadable that is cut off or for something else than was asked; return its description."""
        name = self._name
        try:
            loadable = parse_loadable(data)
            description = describe(loadable)
        except LoadableError as error:
            raise CompileError(f"{name}: exit status 0, but its loadable is malformed: {error}") from error
        wanted = ("half", False) if precision is Precision.FP16 else ("int8", target.feature_atom_bytes == 8)
        for tensor, shown in zip(loadable.outputs, description["outputs"], strict=True):
            if (shown["type"], tensor.pixel_format == PixelFormat.FEATURE_X8) != wanted:
                raise CompileError(
                    f"{name}: asked for {precision} on {target.name}, but output {tensor.name!r} is of type "
                    f"{shown['type']}, format {shown['format']}; the options were not taken as given"
                )
        return description
