"""Errors that a user can act on.

Every message says what is wrong, where (file, layer, entry or field), what was found, what was
expected and what to do. The command line prints the message alone and exits with status 2;
anything that is not an `NvdlaQuantError` is a defect of this project.
"""

from __future__ import annotations  # TensorRT's interpreter may be Python 3.8.


class NvdlaQuantError(Exception):
    """Base of every error that this package raises on purpose."""


class ConfigError(NvdlaQuantError):
    """The configuration is wrong."""


class DownloadError(NvdlaQuantError):
    """A file cannot be had, is not what its digest says, or an archive is not safe to unpack."""


class NetworkError(NvdlaQuantError):
    """A network file is malformed, inconsistent or uses what this package cannot read."""


class UnsupportedError(NetworkError):
    """A layer is sound and asks for something that nothing here can do."""


class WeightsError(NetworkError):
    """A caffemodel does not hold what a layer of the prototxt needs."""


class DatasetError(NvdlaQuantError):
    """A data set is missing, malformed or too small for what was asked."""


class CacheError(NvdlaQuantError):
    """A calibration cache is malformed or does not belong to the network."""


class NcnnTableError(CacheError):
    """What should be a calibration cache is an INT8 table of ncnn."""


class TableError(NvdlaQuantError):
    """A calibration table is malformed, incomplete or holds an impossible scale."""


class LoadableError(NvdlaQuantError):
    """A loadable is malformed: not the format, or an entry outside what it declares."""


class CompileError(NvdlaQuantError):
    """The network cannot be compiled for this target and precision."""


class ClaimError(NvdlaQuantError):
    """What should say what the operations of a loadable stand for is malformed."""


class EmulationError(NvdlaQuantError):
    """A loadable asks for something that the firmware or the emulator refuses."""


class WrongTargetError(EmulationError):
    """A loadable was made for another target than the one that it is to run on."""


class TraceError(NvdlaQuantError):
    """A trace of register writes is malformed, or asks for what the hardware does not do."""

    line: int | None = None
    """Line of the trace that the message is about, where whoever raised it knew."""

    @classmethod
    def at(cls, line: int, message: object) -> TraceError:
        """Return the error of a line."""
        return cls(str(message)).located(line)

    def located(self, line: int) -> TraceError:
        """Return the error, of `line` unless it knows another."""
        self.line = line if self.line is None else self.line
        return self


class MissingDataError(TraceError):
    """A file that a trace names is not there."""


class MissingUnitError(TraceError):
    """A trace uses a unit that the target has not."""


class DumpError(NvdlaQuantError):
    """A raw dump is malformed or of another shape than expected."""


class ReportError(NvdlaQuantError):
    """A record that a report is made from is malformed, or two of them contradict each other."""


class ToolError(NvdlaQuantError):
    """A program outside of this package is missing, failed, hung, or did not do what it said."""


class DeviceLostError(ToolError):
    """A device stopped answering; it may come back."""


class StuckError(ToolError):
    """A program survives being killed; nothing but its driver, or another start of its machine, ends it."""


class MeasurementError(NvdlaQuantError):
    """Measured times are malformed, too few, or of another loadable."""
