"""``nvdla-quant inspect``."""

import json
import sys

from nvdla_quant.cli.options import AsJson, LoadableFile
from nvdla_quant.emulator.decode.program import fitting_targets
from nvdla_quant.emulator.decode.releases import lost_releases
from nvdla_quant.loadable.describe import describe, render
from nvdla_quant.loadable.reader import read_loadable


def command(loadable: LoadableFile, as_json: AsJson = False) -> None:
    """Show what a loadable holds: the targets that it fits, tensors, memory, tasks, operations."""
    content = read_loadable(loadable)
    description = describe(content)
    # The format has no field for the target.
    targets = [program.target for program in fitting_targets(content)]
    fits = [target.name for target in targets]
    stops = {target.name: stop for target in targets if (stop := lost_releases(content, target)) is not None}
    if as_json:
        gated = {name: vars(stop) for name, stop in stops.items()}
        print(json.dumps({**description, "targets": fits, "stops_with_clock_gating": gated}, indent=2))
        return
    print(render(description))
    print(f"fits {', '.join(fits)}" if fits else "fits none of the shipped targets")
    for name, stop in stops.items():
        print(f"warning: {name}: {stop}", file=sys.stderr)
