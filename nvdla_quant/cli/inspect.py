"""``nvdla-quant inspect``."""

import json

from nvdla_quant.cli.options import AsJson, LoadableFile
from nvdla_quant.emulator.decode.program import fitting_targets
from nvdla_quant.loadable.describe import describe, render
from nvdla_quant.loadable.reader import read_loadable


def command(loadable: LoadableFile, as_json: AsJson = False) -> None:
    """Show what a loadable holds: the targets that it fits, tensors, memory, tasks, operations."""
    content = read_loadable(loadable)
    description = describe(content)
    # The format has no field for the target.
    fits = [program.target.name for program in fitting_targets(content)]
    if as_json:
        print(json.dumps({**description, "targets": fits}, indent=2))
        return
    print(render(description))
    print(f"fits {', '.join(fits)}" if fits else "fits none of the shipped targets")
