"""Stands in for OpenSSH's ssh: the board is this machine, and its login shell reads the command as a string.

Refuses to work without the options that make it safe. `FAKE_SSH` says how it fails; `FAKE_CONNECTIONS` counts how often
it had to connect, which is whenever there is no socket of a connection yet.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

options, rest = {}, []
arguments = sys.argv[1:]
while arguments:
    part = arguments.pop(0)
    if part == "-o":
        key, _, value = arguments.pop(0).partition("=")
        options[key] = value
    elif part == "-O":
        options["command"] = arguments.pop(0)
    elif part == "--":
        rest = arguments
        break
    else:
        sys.exit(f"fake ssh: unexpected {part!r}")
with open(os.environ["FAKE_CALLS"], "a") as log:
    log.write(json.dumps({"options": options, "rest": rest}) + "\n")
if options["BatchMode"] != "yes" or options["StrictHostKeyChecking"] != "yes":
    sys.exit(98)
socket, mode = Path(options["ControlPath"]), os.environ.get("FAKE_SSH", "")
if options.get("command") == "exit":
    socket.unlink()
    sys.exit(0)
if mode == "unknown-host":
    print("No ED25519 host key is known for board and you have requested strict checking.", file=sys.stderr)
    print("Host key verification failed.", file=sys.stderr)
    sys.exit(255)
lost = Path(os.environ["FAKE_CONNECTIONS"] + ".lost")
if mode == "gone" and lost.exists():
    print("ssh: connect to host board port 22: No route to host", file=sys.stderr)
    sys.exit(255)
if not socket.exists():
    socket.touch()
    count = Path(os.environ["FAKE_CONNECTIONS"])
    count.write_text(str(int(count.read_text()) + 1 if count.exists() else 1))
_, command = rest
if mode in ("lost-once", "gone") and "nvdla_runtime" in command and not lost.exists():
    lost.touch()
    print("client_loop: send disconnect: Broken pipe", file=sys.stderr)
    sys.exit(255)
sys.exit(subprocess.run(["sh", "-c", command], check=False).returncode)
