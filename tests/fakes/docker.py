"""Stands in for docker: a container that is this machine, in which the bound folder is the working folder."""

import os
import sys

arguments = sys.argv[1:]
if arguments[0] == "rm":
    sys.exit(0)
assert arguments[:2] == ["run", "--rm"]
options = {}
arguments = arguments[2:]
while arguments[0].startswith("-"):
    flag = arguments.pop(0)
    options[flag] = "" if flag == "-it" else arguments.pop(0)
mount = dict(part.split("=", 1) for part in options["--mount"].split(","))
assert mount["target"] == options["--workdir"]
os.chdir(mount["source"])
told = {name: value for name, value in os.environ.items() if name.startswith("FAKE_")}
os.execvpe(options["--entrypoint"], [options["--entrypoint"], *arguments[1:]], told | {"PATH": "/usr/bin:/bin"})
