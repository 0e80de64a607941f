"""Stands in for scp between this machine and a board that is this machine; it fails as `FAKE_SSH` says."""

import json
import os
import shutil
import sys
from pathlib import Path

arguments = sys.argv[1:]
split = arguments.index("--")
with open(os.environ["FAKE_CALLS"], "a") as log:
    log.write(json.dumps({"scp": arguments[split + 1 :]}) + "\n")
source, destination = (name if name.startswith("/") else name.rpartition(":")[2] for name in arguments[split + 1 :])
mark = Path(os.environ["FAKE_CONNECTIONS"] + ".half")
if os.environ.get("FAKE_SSH") == "half-once" and source.endswith("output.dimg") and not mark.exists():
    mark.touch()
    Path(destination).write_bytes(Path(source).read_bytes()[:5])
    sys.exit("scp: Connection closed")
try:
    shutil.copyfile(source, destination)
except OSError as error:
    sys.exit(f"scp: {error}")
