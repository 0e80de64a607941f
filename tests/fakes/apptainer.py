"""Stands in for apptainer: a container is this machine, with an interpreter of its own and the folders bound into it.

`FAKE_CONTAINER` is the folder with the interpreter's environment; without it an image's programs are this machine's.
A command that names a file here which no bound folder holds ends, as it would where that file is not there. (The real
one binds /tmp too, unless told not to.)
"""

import os
import shlex
import sys
from pathlib import Path

arguments = [part for part in sys.argv[1:] if part not in ("--quiet", "--silent")]
if arguments == ["--version"]:
    sys.exit(print("apptainer version 1.3.4"))
if arguments[:2] == ["pull", "--name"]:
    sys.exit(Path(arguments[2]).write_text(arguments[3]) and 0)
assert arguments.pop(0) == "exec"
options: dict[str, list[str]] = {}
while arguments[0].startswith("--"):
    flag = arguments.pop(0)
    options.setdefault(flag, []).append("" if flag in ("--nv", "--cleanenv") else arguments.pop(0))
image, *command = arguments
bound = [*filter(None, os.environ.get("APPTAINER_BIND", "").split(",")), *options.get("--bind", ())]
mounts = dict((one.split(":") * 2)[:2] for one in [*bound, *options.get("--home", ())])
for source in mounts:
    if not Path(source).exists():
        sys.exit(f"fake apptainer: mount source {source} doesn't exist")
folder = next((source for source, target in mounts.items() if [target] == options.get("--pwd")), os.getcwd())
environment = {} if "--cleanenv" in options else dict(os.environ)
environment["PATH"] = os.pathsep.join(filter(None, [os.environ.get("FAKE_CONTAINER", "") + "/bin", "/usr/bin", "/bin"]))
environment |= {name: value for name, value in os.environ.items() if name.startswith("FAKE_")}
if command[-2:-1] == ["-c"]:
    words = [word.rpartition("=")[2].rstrip(";") for word in shlex.split(command[-1])]
    for path in (Path(folder, word) for word in words):
        real = path.resolve()
        within = any(real.is_relative_to(mount) for mount in (*mounts, "/usr", "/bin", "/dev"))
        if path.exists() and not (within and any(path.is_relative_to(mount) for mount in mounts)):
            sys.exit(f"fake apptainer: {path} is not in the container")
if image.startswith("docker://"):
    print("INFO:    Using cached SIF image", file=sys.stderr)
os.chdir(folder)
os.execvpe(command[0], command, environment)
