"""Fork a process for each script that a client asks for, with all imported that scripts import of other packages."""

import atexit
import contextlib
import gc
import importlib
import json
import os
import runpy
import selectors
import socket
import sys
import traceback

IMPORTED = (
    "altair",
    "flatbuffers",
    "google.protobuf.text_format",
    "jsonschema",
    "numba",
    "numpy",
    "onnx",
    "onnxruntime",
    "pandas",
    "PIL.Image",
    "snakemake.iocontainers",
    "snakemake.logging",
    "yaml",
)


def serve(path: str) -> list[str]:
    """Return in each process that was forked, with the arguments of its script; exit once the input has ended."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    os.write(1, b"listening")
    os.close(1)
    os.dup2(2, 1)
    for name in IMPORTED:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()
    waiting: dict[int, tuple[int, socket.socket]] = {}
    with selectors.DefaultSelector() as events:
        events.register(listener, selectors.EVENT_READ)
        events.register(0, selectors.EVENT_READ)
        while True:
            for event, _ in events.select():
                if event.fd == 0:
                    sys.exit()
                if event.fileobj is not listener:
                    events.unregister(event.fd)
                    answer(event.fd, *waiting.pop(event.fd))
                    continue
                connection, _ = listener.accept()
                request, descriptors = received(connection)
                if not (process := os.fork()):
                    for open_file in (listener, connection, *(one for _, one in waiting.values())):
                        open_file.close()
                    for handle in waiting:
                        os.close(handle)
                    return become(request, descriptors)
                for descriptor in descriptors:
                    os.close(descriptor)
                handle = os.pidfd_open(process)
                waiting[handle] = (process, connection)
                events.register(handle, selectors.EVENT_READ)


def received(connection: socket.socket) -> tuple[dict[str, object], list[int]]:
    """A client's request, and the files that are its input, output and errors."""
    content, descriptors, _, _ = socket.recv_fds(connection, 1, 3)
    while not content.endswith(b"\n"):
        content += connection.recv(1 << 16)
    return json.loads(content), descriptors


def answer(handle: int, process: int, connection: socket.socket) -> None:
    """Tell a client how its script has ended."""
    os.close(handle)
    _, status = os.waitpid(process, 0)
    with connection, contextlib.suppress(BrokenPipeError):
        connection.sendall(str(os.waitstatus_to_exitcode(status)).encode())


def become(request: dict[str, object], descriptors: list[int]) -> list[str]:
    """Take the place of the client: its files, folder and environment; return the arguments."""
    for place, descriptor in enumerate(descriptors):
        os.dup2(descriptor, place)
        os.close(descriptor)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.dont_write_bytecode = bool(os.environ.get("PYTHONDONTWRITEBYTECODE"))
    script = request["arguments"][0]
    added = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    sys.path[:0] = [os.path.dirname(script), *added]
    return request["arguments"]


def ended(path: str) -> int:
    """Run a script to its end, and return the status with which Python would exit."""
    try:
        runpy.run_path(path, run_name="__main__")
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        return end.code if isinstance(end.code, int) else bool(end.code)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    sys.argv[:] = serve(sys.argv[1])
    status = ended(sys.argv[0])
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    # At a true end libraries would wait for threads of theirs, which only the process has that was forked.
    os._exit(status)
