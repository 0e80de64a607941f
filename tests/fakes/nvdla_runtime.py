"""Stands in for nvdla_runtime: `FAKE_MODE` says how it fails.

A mode that ends in ``-once`` fails on the first call alone, one in ``-second`` on the second, which the file
`FAKE_STATE` remembers. `FAKE_SAYS` is a line in its log, after which it goes on as the real one does; `FAKE_DEAD_PIXEL`
is the first pixel of an image on which it hangs, whenever that image comes. What it computes lies in the folder
`FAKE_ANSWERS` under the digest of the image, or comes from the emulator. Where `FAKE_DEVICE` names a file, that is the
hardware: two at once on it spoil both. ``no-driver`` and ``task-timeout`` print what the real one does there, in its
order (the library's messages are not buffered, the program's are).
"""

import hashlib
import json
import os
import sys
import time
from pathlib import Path


def emulate(loadable_file: Path, image_file: Path, options: dict[str, str]) -> bytes:
    """Return the dump that the emulator gives; ends as the runtime does where the image does not fit."""
    import site

    site.main()
    import numpy as np
    from PIL import Image

    from nvdla_quant.emulator.decode.program import decode
    from nvdla_quant.emulator.run import run
    from nvdla_quant.loadable.reader import read_loadable
    from nvdla_quant.loadable.records import DataType
    from nvdla_quant.runtime.dimg import write_dimg_text

    loadable = read_loadable(loadable_file)
    port = loadable.inputs[0]
    image = np.asarray(Image.open(image_file)).astype(np.float32)
    planes = image[None] if image.ndim == 2 else image[..., ::-1].transpose(2, 0, 1)
    if planes.shape[1:] != (port.h, port.w):
        print(f"(DLA_TEST) Error 0x00000004: Mismatched width: {planes.shape[2]} != {port.w} (in TestUtils.cpp)")
        sys.exit(255)
    inputs = np.zeros((1, port.c, port.h, port.w), np.float16 if port.data_type == DataType.HALF else np.int8)
    for channel, plane in enumerate(planes):
        if inputs.dtype == np.int8:
            inputs[0, channel] = np.floor(plane * 127 / 255 + 0.5)
        else:
            mean = [float(value) for value in options.get("--mean", "0,0,0").split(",")]
            inputs[0, channel] = (plane - np.float32(mean[channel])) / (int(options.get("--normalize", "1")) % 256)
    write_dimg_text("emulated.bin", run(decode(loadable), inputs)[0])
    return Path("emulated.bin").read_bytes()


mode = os.environ.get("FAKE_MODE", "")
state = Path(os.environ["FAKE_STATE"])
calls = int(state.read_text()) if state.exists() else 0
state.write_text(str(calls + 1))
for suffix, number in (("-once", 0), ("-second", 1)):
    if mode.endswith(suffix):
        mode = mode.removesuffix(suffix) if calls == number else ""
if "FAKE_CALLS" in os.environ:
    with open(os.environ["FAKE_CALLS"], "a") as log:
        log.write(json.dumps(sys.argv[1:]) + "\n")

arguments = sys.argv[1:]
options = dict(zip(arguments, [*arguments[1:], ""], strict=True))
path = Path(options["--image"])
print("creating new runtime context...\nEmulator starting")
if path.suffix not in (".pgm", ".jpg"):
    print(f"Unknown image type: {path}", end="")
content = path.read_bytes()
first = content.split(b"\n", 3)[-1][0] if path.suffix == ".pgm" else None
# Printed for every image that has fewer channels than the loadable's input, which means nothing.
print("(DLA_TEST) Error 0x00000004: Mismatched channel: 1 != 4 (in TestUtils.cpp, function createImageCopy())")
if mode == "no-driver":
    for line in ("failed to open dla device", "Out of bounds DLA instance 0 requested."):
        print(f"libnvdla<1> {line}", file=sys.stderr)
    print("(DLA_TEST) Error 0x00000004: runtime->load failed (in RuntimeTest.cpp, function loadLoadable(), line 353)")
    print("(DLA_TEST) Error 0x00000004: (propagating from RuntimeTest.cpp, function run(), line 443)")
    sys.exit(1)
if mode == "task-timeout":
    print("submitting tasks...\nNvDlaSubmit: Error IOCTL failed (Connection timed out)")
    for place in ("submitInternal(), line 669", "submit(), line 588"):
        print(f"(DLA_RUNTIME) Error 0x0003000f: (propagating from Runtime.cpp, function {place})")
    print("(DLA_TEST) Error 0x00000004: runtime->submit() failed (in RuntimeTest.cpp, function runTest(), line 397)")
    sys.exit(1)
if "FAKE_DEVICE" in os.environ:
    hardware = Path(os.environ["FAKE_DEVICE"])
    try:
        hardware.open("x").close()
    except FileExistsError:
        print("(DLA) Error 0x00000001: two runtimes on one device")
    time.sleep(0.3)
    hardware.unlink(missing_ok=True)
if mode == "hang" or os.environ.get("FAKE_DEAD_PIXEL") == str(first):
    time.sleep(600)
if mode == "panic":
    print("FAKE-PANIC", flush=True)
    time.sleep(600)
if mode == "vanish":
    print("FAKE-VANISH", flush=True)
    time.sleep(600)
print("submitting tasks...")
if "FAKE_ANSWERS" in os.environ:
    dump = (Path(os.environ["FAKE_ANSWERS"]) / hashlib.sha256(content).hexdigest()).read_bytes()
else:
    dump = emulate(Path(options["--loadable"]), path, options)
if mode == "wrong":
    dump = (b"0 " if dump[:2] != b"0 " else b"1 ") + dump.split(b" ", 1)[1]
if "FAKE_SAYS" in os.environ:
    print(os.environ["FAKE_SAYS"])
if mode == "truncated":
    dump = dump[:-3]
if mode == "empty":
    dump = b""
if mode != "no-output":
    Path("output.dimg").write_bytes(dump)
if mode == "early-failure":
    sys.exit(255)
print("Test pass", flush=True)
sys.exit(139 if mode == "late-failure" else 0)
