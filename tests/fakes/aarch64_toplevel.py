"""Stands in for the virtual platform: a login, a shell whose machine is this one, and the kernel's noise in between.

`FAKE_VP` says how: ``noise`` writes into prompts and answers, ``no-login`` boots for ever, ``panic`` and ``ends`` do so
before the prompt, ``no-module`` lacks a driver, ``no-mount`` the shared folder, ``once`` boots but once. What the
fake runtime prints makes the kernel panic or the platform end. `FAKE_BOOTS` counts the boots;
`FAKE_USER` and `FAKE_PASSWORD` let in, `FAKE_MOUNT` is where the shared folder may be mounted.
"""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

mode = os.environ.get("FAKE_VP", "")
boots = Path(os.environ["FAKE_BOOTS"])
boots.write_text(str(int(boots.read_text()) + 1 if boots.exists() else 1))
if sys.argv[1] != "-c":
    sys.exit("usage: aarch64_toplevel -c FILE")


def say(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


say("SystemC 2.3.0-ASI\r\n[    0.000000] Booting Linux on physical CPU 0x0\r\n")
if mode == "no-login" or (mode == "once" and boots.read_text() != "1"):
    time.sleep(600)
if mode == "panic":
    say("[    1.0] Kernel panic - not syncing: VFS: Unable to mount root fs\r\n")
    time.sleep(600)
if mode == "ends":
    sys.exit("Error: cannot find the kernel image")
say("Welcome to Buildroot\r\nnvdla lo[    9.1] random: fast init done\r\ngin: " if mode == "noise" else "nvdla login: ")
while not (user := sys.stdin.readline().strip()):
    say("nvdla login: ")
if user != os.environ.get("FAKE_USER", "root"):
    sys.exit("no such user")
say("Password: ")
if sys.stdin.readline().strip() != os.environ.get("FAKE_PASSWORD", "nvdla"):
    say("Login incorrect\r\n")
    time.sleep(600)
say("# ")
shell = subprocess.Popen(
    ["sh"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, bufsize=1
)
assert shell.stdin is not None
assert shell.stdout is not None
insmod = "echo insmod: cannot insert; return 1" if mode == "no-module" else 'test -f "$1" && echo "inserted $1"'
mount = "echo mount: No such device; return 255" if mode == "no-mount" else 'echo "mount $*"'
shell.stdin.write(
    f"stty() {{ :; }}\ndmesg() {{ :; }}\nsync() {{ :; }}\nmount() {{ {mount}; }}\n"
    f'cd() {{ test "$1" = "$FAKE_MOUNT" -o "$1" = /mnt; }}\ninsmod() {{ {insmod}; }}\n'
)


def show() -> None:
    broken = 0
    for line in shell.stdout:
        if "FAKE-PANIC" in line:
            say("[   42.0] Unable to handle kernel paging request\r\n[   42.1] Kernel panic - not syncing: Fatal\r\n")
            return
        if "FAKE-VANISH" in line:
            os._exit(0)
        if mode == "noise" and line.startswith("@") and broken % 5 < 2:
            say(line[:9] + "[   33.1] random: crng init done\r\n" + line[9:])
        else:
            say(line.replace("\n", "\r\n"))
        broken += line.startswith("@")


threading.Thread(target=show, daemon=True).start()
for line in sys.stdin:
    shell.stdin.write(line)
