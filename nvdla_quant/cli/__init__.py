"""The command line: the functions of the workflow, one file at a time, one module a command.

Bad usage and bad input end with exit status 2 and one line on standard error; outputs are written whole or not at all.
A command's module, and with it all that it computes with, is imported when the command is called.
"""

import sys
from collections.abc import Callable
from importlib import import_module
from typing import Annotated, Any, cast

import typer
from typer.core import TyperCommand, TyperGroup

from nvdla_quant import __version__
from nvdla_quant.errors import NvdlaQuantError

USAGE_ERROR = cast(type[typer.BadParameter], typer.BadParameter.__mro__[1])
"""Bad usage of any kind: click's UsageError, which newer versions of typer bring along under a private name."""

COMMANDS = {
    "inspect": "Show what a loadable holds: the targets that it fits, tensors, memory, tasks, operations.",
    "emulate": "Run a loadable as the hardware would.",
    "compile": "Compile a network to a loadable; options and values are nvdla_compiler's.",
    "calibrate": "Find the scale of each tensor; writes TensorRT's cache format.",
    "convert": "Write an ONNX model as Caffe's files, or with --to onnx a Caffe model as ONNX.",
    "convert-cache": (
        "Write a calibration cache, or another table whose numbers mean the same, as JSON, names as they are."
    ),
    "fix-table": "Make the calibration table that a compiler takes: layer names, scales that agree.",
    "equalize": "Even out the weights of a network's channels, and prove that it computes the same.",
    "refine": "Correct biases and choose roundings for int8.",
    "search": "Search the scales with which the loadable gives the best scores.",
    "check": "Say what a target cannot run of a network, all of it; exit status 3 where that is anything.",
    "verify": "Compare a loadable with the float network, layer by layer, and say what is wrong.",
    "estimate": "Say how many cycles a loadable takes on the hardware, operation by operation, without running it.",
    "trace": "Write a loadable as a program of registers, with its memory images and what it leaves of an image.",
    "replay": "Run a trace of register writes and its checks as the hardware would; exit status 4 where one differs.",
    "top": "Print the k highest scores of a raw dump: 0-based index, value, label.",
    "compare-manifests": "List the artefacts that differ between two runs, and why; exit status 1 where any does.",
}
"""What each command does, as its own help begins: the list of commands is shown without importing them."""
FOLDERS = {
    **dict.fromkeys(("convert-cache", "fix-table"), "tables"),
    **dict.fromkeys(("equalize", "refine", "search"), "weights"),
    **dict.fromkeys(("trace", "replay"), "registers"),
}
"""Folders, within this one, of the modules of commands that are not in it themselves."""


def command_of(name: str) -> TyperCommand:
    """Return a command as its module declares it: the function ``command`` of the module with its name."""
    module = ".".join(filter(None, ("nvdla_quant.cli", FOLDERS.get(name), name.replace("-", "_"))))
    function: Callable[..., None] = import_module(module).command
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command(name)(function)
    return cast(TyperCommand, typer.main.get_command(app))


class _Named(TyperCommand):
    """A command that is in the list, and becomes itself when it is called."""

    def make_context(self, info_name: str | None, args: list[str], *others: Any, **more: Any) -> Any:
        return command_of(cast(str, self.name)).make_context(info_name, args, *others, **more)


def _version(value: bool) -> None:
    if value:
        print(f"nvdla-quant {__version__}")
        raise typer.Exit


def _options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    pass


def _commands() -> TyperGroup:
    app = typer.Typer(
        name="nvdla-quant",
        help="Quantize Caffe and ONNX classifiers for NVDLA, and run loadables exactly as the hardware does.",
        no_args_is_help=True,
        callback=_options,
        add_completion=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    group = typer.main.get_group(app)
    for name, summary in COMMANDS.items():
        group.add_command(_Named(name, help=summary, rich_markup_mode=None))
    return group


def main() -> None:
    """Run the command line."""
    try:
        status = _commands()(standalone_mode=False)
    except typer.Abort:
        status = 130
    except USAGE_ERROR as error:
        print(f"nvdla-quant: {error.format_message()}", file=sys.stderr)
        status = 2
    except NvdlaQuantError as error:
        print(f"nvdla-quant: {error}", file=sys.stderr)
        status = 2
    except OSError as error:
        where = "" if error.filename is None else f"{error.filename}: "
        print(f"nvdla-quant: {where}{error.strerror or error}; check the path and its permissions", file=sys.stderr)
        status = 2
    sys.exit(status)
