"""Stands in for nvdla_compiler: its argument parsing, its table reading, and its ways to fail (`FAKE_MODE`).

`FAKE_SAYS` is a line in its log, after which it goes on as the real one does. `FAKE_LOADABLE` names the loadable that
it "compiles" (without it, this package's compiler makes one); `FAKE_CALLS`, a file that gets the arguments as a line of
JSON.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

mode = os.environ.get("FAKE_MODE", "")
arguments = sys.argv[1:]
if "FAKE_CALLS" in os.environ:
    with open(os.environ["FAKE_CALLS"], "a") as calls:
        calls.write(json.dumps(arguments) + "\n")

options = {}
known = "--prototxt --caffemodel -o --profile --cprecision --configtarget --calibtable --quantizationMode --batch"
for flag, value in zip(arguments[::2], arguments[1::2], strict=False):
    if flag not in (*known.split(), *(() if mode == "old" else ("--informat",))):
        print(f"unknown argument: {flag}\nUsage: nvdla_compiler [-options]")
        sys.exit(1)
    options[flag] = value
if mode == "usage" or "--prototxt" not in options or "--caffemodel" not in options:
    print("Usage: nvdla_compiler [-options] --prototxt <prototxt_file> --caffemodel <caffemodel_file>")
    sys.exit(0)

print("creating new wisdom context...\nopening wisdom context...")
if mode == "hang":
    # What it started must go as well.
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", sys.argv[0]])
    time.sleep(600)
if mode in ("divide", "segfault"):
    os.kill(os.getpid(), signal.SIGFPE if mode == "divide" else signal.SIGSEGV)
if mode == "parse-error":
    print("libnvdla<1> could not parse layer type PReLU")
    print('(DLA) Error 0x00000004: Unable to parse caffemodel: "deploy.prototxt" (in ParseTest.cpp)')
    sys.exit(255)

if "--calibtable" in options:
    path = Path(options["--calibtable"].lower())  # As the real one.
    if not path.is_file():
        print("nvdla_compiler: filereadstream.h:45: Assertion 'fp_ != 0' failed.", flush=True)
        os.kill(os.getpid(), signal.SIGABRT)
    table = json.loads(path.read_text())
    text = Path(options["--prototxt"]).read_text()
    for name, kind in re.findall(r'name: "([^"]*)"\s*type: "([^"]*)"', text):
        if kind not in ("Dropout", "Flatten") and (name not in table or mode == "missing-entry"):
            print(
                "nvdla_compiler: rapidjson/document.h:1105: operator[](const ...): Assertion 'false' failed.",
                flush=True,
            )
            os.kill(os.getpid(), signal.SIGABRT)

print(f'compiling profile "{options["--profile"]}"... config "{options["--configtarget"]}"...')
if "FAKE_LOADABLE" in os.environ:
    data = Path(os.environ["FAKE_LOADABLE"]).read_bytes()
else:
    kept = ("--prototxt", "--caffemodel", "--cprecision", "--configtarget", "--calibtable", "--quantizationMode")
    given = [part for flag in kept if flag in options for part in (flag, options[flag])]
    subprocess.run([sys.executable, "-m", "nvdla_quant", "compile", *given, "--output", "made.bin"], check=True)
    data = Path("made.bin").read_bytes()
if options["--configtarget"] not in ("nv_full", "nv_large", "nv_small") or mode == "garbage-target":
    print("libnvdla<1> Invalid target config")
if "FAKE_SAYS" in os.environ:
    print(os.environ["FAKE_SAYS"])
if mode == "truncated":
    data = data[: len(data) // 2]
name = "default" if mode == "other-name" else options["--profile"]
if mode != "no-output":
    Path(f"{name}.nvdla").write_bytes(data)
Path("output.protobuf").write_bytes(b"")
print("closing wisdom context...")
sys.exit(255 if mode == "late-failure" else 0)
