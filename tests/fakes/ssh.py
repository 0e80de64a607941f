"""Stands in for OpenSSH's ssh: the board is this machine, and its login shell reads the command as a string.

Refuses to work without the options that make it safe. `FAKE_SSH` says how it fails: what runs on the board when the
connection is lost goes on there (``lost-running``), or was not started; ``unkillable`` is a board whose driver keeps
what is killed. `FAKE_CONNECTIONS` counts how often it had to connect, which is whenever there is no socket of a
connection yet. `FAKE_BOARD_PATH` is where the board's programs are.
"""

import json
import os
import subprocess
import sys
import time
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
if mode in ("lost-once", "lost-running", "gone") and "--loadable" in command and not lost.exists():
    lost.touch()
    socket.unlink()
    if mode == "lost-running":
        subprocess.Popen(["sh", "-c", command], start_new_session=True, stdout=subprocess.DEVNULL)
        time.sleep(1)
    print("client_loop: send disconnect: Broken pipe", file=sys.stderr)
    sys.exit(255)
if mode == "unkillable":
    command = command.replace("kill -9", ":")
path = {"PATH": os.environ["FAKE_BOARD_PATH"]} if "FAKE_BOARD_PATH" in os.environ else {}
# What ends the client does not end what it started elsewhere.
sys.exit(subprocess.run(["sh", "-c", command], check=False, env=os.environ | path, start_new_session=True).returncode)
