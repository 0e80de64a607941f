"""``nvdla-quant inspect``."""

import json

from nvdla_quant.cli.options import AsJson, LoadableFile
from nvdla_quant.loadable.describe import describe, render
from nvdla_quant.loadable.reader import read_loadable


def command(loadable: LoadableFile, as_json: AsJson = False) -> None:
    """Show what a loadable holds: tensors, memory, tasks, operations."""
    description = describe(read_loadable(loadable))
    print(json.dumps(description, indent=2) if as_json else render(description))
