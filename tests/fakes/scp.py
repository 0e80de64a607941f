"""Stands in for scp between this machine and a board that is this machine."""

import json
import os
import shutil
import sys

arguments = sys.argv[1:]
split = arguments.index("--")
with open(os.environ["FAKE_CALLS"], "a") as log:
    log.write(json.dumps({"scp": arguments[split + 1 :]}) + "\n")
source, destination = (name if name.startswith("/") else name.partition(":")[2] for name in arguments[split + 1 :])
try:
    shutil.copyfile(source, destination)
except OSError as error:
    sys.exit(f"scp: {error}")
