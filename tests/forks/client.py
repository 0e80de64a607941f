"""Have a script run as if this process ran it: with its files, its folder and its environment."""

import json
import os
import signal
import socket
import sys

with socket.socket(socket.AF_UNIX) as server:
    server.connect(sys.argv[1])
    request = {"arguments": sys.argv[2:], "folder": os.getcwd(), "environment": dict(os.environ)}
    content = json.dumps(request).encode() + b"\n"
    socket.send_fds(server, [content[:1]], [0, 1, 2])
    server.sendall(content[1:])
    status = int(server.recv(16) or 1)
if status < 0:
    signal.signal(-status, signal.SIG_DFL)
    os.kill(os.getpid(), -status)
sys.exit(status)
