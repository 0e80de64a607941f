"""No name of the configuration reaches a shell unquoted: every key that takes free text holds a canary in some test.

Which keys these are follows from the schema, so that a new one fails here until a test uses it.
"""

import hashlib
import os
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jsonschema
import numpy as np
import onnx
import pytest
import yaml
from PIL import Image

from nvdla_quant.compiler.nvdla_compiler import NvdlaCompiler
from nvdla_quant.configuration.load import load_configuration
from nvdla_quant.configuration.schema import load_schema
from nvdla_quant.errors import ConfigError
from nvdla_quant.hardware.targets import NV_SMALL
from nvdla_quant.network.onnx.writer import to_onnx
from nvdla_quant.runtime.on_device import device_of
from tests.e2e.test_tools import tools_config
from tests.fakes import CANARY, NASTY, install
from tests.specifications import text_of, values_of
from tests.sweeps import run, tiny_network
from tests.unit.compiler.test_nvdla_compiler import TABLE
from tests.unit.runtime.test_nvdla_runtime import Bench

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("canary")]

LINE = NASTY.replace("\n", " ")
"""The same without a line break, where a key takes a line."""


def test_the_canary_sings(tmp_path: Path) -> None:
    """Else no test here could fail."""
    for command in (f"echo {NASTY}", f"echo {LINE}", f'echo "{NASTY.partition(";")[0]}"'):
        song = tmp_path / "song"
        subprocess.run(["sh", "-c", command], env={CANARY: str(song), "PATH": os.environ["PATH"]}, check=False)
        assert song.exists(), command
        song.unlink()


# ---- which keys


def free_keys(schema: Mapping[str, Any], node: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each key below `node` that takes text, with its part of the schema; ``*`` stands for any name or place."""
    if "$ref" in node:
        target: Any = schema
        for part in node["$ref"].split("/")[1:]:
            target = target[part]
        yield from free_keys(schema, target, path)
    for choice in node.get("anyOf", ()):
        yield from free_keys(schema, choice, path)
    below = {f".{key}": value for key, value in node.get("properties", {}).items()}
    below |= {end: node[key] for key, end in _ANY.items() if isinstance(node.get(key), Mapping)}
    for end, value in below.items():
        yield from free_keys(schema, value, f"{path}{end}".lstrip("."))
    kinds = node.get("type", [])
    if "string" in ([kinds] if isinstance(kinds, str) else kinds) and "enum" not in node:
        yield path, node


_ANY = {"additionalProperties": ".*", "items": ".*", "propertyNames": ".(name)"}


def record_of(key: str) -> str:
    """Return the key with what several records share told once: files, and the source of calibration images."""
    kind, _, last = key.replace("calibration_source", "source").rpartition(".")
    return f"file.{last}" if last in ("url", "archive", "member", "sha256") else f"{kind}.{last}"


def accepts(schema: Mapping[str, Any], node: Mapping[str, Any], text: str) -> bool:
    return jsonschema.Draft202012Validator({**node, "$defs": schema["$defs"]}).is_valid(text)


STARTS = ("", "/", "a", "https://a/", "docker://a")
"""What a pattern may ask a text to begin with."""


def test_every_key_that_takes_free_text_holds_a_canary_somewhere(tiny_config: dict[str, Any], tmp_path: Path) -> None:
    schema = load_schema()
    used = {
        record_of(key)
        for config in (
            tools_config(tiny_config, tmp_path),
            files_config(tiny_config, "http://127.0.0.1", tmp_path, "unknown"),
            *({"backends": {"nvdla_compiler": compiler_config(launcher)}} for launcher in ("apptainer", "docker")),
            *({"backends": {"nvdla_runtime": config}} for config in device_configs(tmp_path).values()),
        )
        for key in _keys_with_canary(config)
    }
    keys = dict(free_keys(schema, schema))
    assert {"models.*.prototxt", "backends.nvdla_runtime.virtual_platform.modules.*.*", "cases.*.model"} <= set(keys)
    int8 = {"precision": "int8", "mode": "per-filter", "calibrator": "entropy"}
    for key, node in keys.items():
        taken = [start for start in STARTS for text in (NASTY, LINE) if accepts(schema, node, start + text)]
        if taken and record_of(key) not in used:
            # A name that must be that of a record goes no further than the configuration.
            records, _, name = key.removesuffix(".*").split(".")
            first = {"include": {}, "exclude": {}, "cases": {"model": "tiny", "dataset": "noise"}, "variants": int8}[
                records
            ]
            value = [NASTY] if key.endswith(".*") else NASTY
            with pytest.raises(ConfigError, match=rf"{records}\[0\].*(is called|picks none)"):
                load_configuration({**tiny_config, records: [{**first, name: value}]})


@pytest.mark.parametrize("good", ["a", "/a", "docker://a", "https://a/b", "0" * 64, "unknown"])
def test_no_pattern_lets_a_line_break_through_at_the_end(good: str) -> None:
    """Python's `$` matches before one."""
    schema = load_schema()
    for key, node in free_keys(schema, schema):
        if "pattern" in node and node["pattern"].endswith("$") and accepts(schema, node, good):
            assert not accepts(schema, node, f"{good}\n"), key


def _keys_with_canary(config: Any, path: str = "") -> Iterator[str]:
    if isinstance(config, Mapping):
        known = path.rpartition(".")[2] in ("models", "datasets", "calibrators", "modules")
        for key, value in config.items():
            yield from _keys_with_canary(value, f"{path}.{'*' if known else key}".lstrip("."))
    elif isinstance(config, list):
        for value in config:
            yield from _keys_with_canary(value, f"{path}.*")
    elif isinstance(config, str) and CANARY in config:
        yield path


# ---- files of models and data sets


def files_config(tiny_config: dict[str, Any], url: str, folder: Path, sha256: str) -> dict[str, Any]:
    """A data set of each format, an ONNX model and an own target, with every file where no shell would find it."""
    remote = {"url": f"{url}/{quote(NASTY)}.zip", "sha256": sha256, "member": f"-d/{NASTY}.npz"}
    local = {"archive": str(folder / f"{NASTY}.zip"), "sha256": sha256, "member": f"-d/{NASTY}/"}
    sources = {
        "idx": {"format": "idx", "images": f"{NASTY}.images", "labels": f"-{NASTY}.labels", "label_names": f"-{NASTY}"},
        "cifar": {"format": "cifar10", "files": [f"-{NASTY}.bin"]},
        "folder": {"format": "folder", "images": local, "labels": f"{NASTY}.txt"},
        "npz": {"format": "npz", "path": f"-{NASTY}.npz"},
        "remote": {"format": "npz", "path": remote},
    }
    pools = {name: {"source": source, "calibration_pool": 16} for name, source in sources.items()}
    pools["other"] = {"source": sources["npz"], "calibration_source": sources["idx"]}
    unlabelled = {"format": "folder", "images": local, "list": f"-{NASTY}.paths"}
    pools["unlabelled"] = {"source": sources["npz"], "calibration_source": unlabelled}
    cases = [{"model": "tiny", "dataset": name, "overrides": {"preprocessing": {"resize": [8, 8]}}} for name in pools]
    tiny = tiny_config["models"]["tiny"]
    exported = {"onnx": f"-{NASTY}.onnx", "cut_at": [NASTY], "preprocessing": tiny["preprocessing"]}
    command = {"metric": "command", "command": [sys.executable, f"{NASTY}.py", NASTY]}
    cases.append({"model": "exported", "dataset": "npz", "overrides": cases[0]["overrides"], **command})
    return tiny_config | {
        "models": {"tiny": tiny, "exported": exported},
        "datasets": pools,
        "cases": cases,
        "targets": [{"name": "own", "spec": f"-{NASTY}.spec"}],
        "variants": [{"precision": "int8", "mode": "per-filter", "calibrator": "entropy"}],
    }


def _renamed(model: onnx.ModelProto, name: str, other: str) -> onnx.ModelProto:
    """Return a model one of whose values is called otherwise."""
    for node in model.graph.node:
        for values in (node.input, node.output):
            values[:] = [other if value == name else value for value in values]
    return model


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    """Serve `tmp_path` by HTTP on this machine."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=tmp_path))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_files_of_every_format_downloaded_or_taken_from_archives(
    new_checkout: Callable[..., Path], tiny_config: dict[str, Any], url: str, tmp_path: Path
) -> None:
    checkout, rng = new_checkout(), np.random.default_rng(0)
    pixels, labels = rng.integers(0, 256, (24, 8, 8), np.uint8), np.arange(24, dtype=np.uint8) % 6
    (checkout / f"{NASTY}.images").write_bytes(np.array([0x803, 24, 8, 8], ">u4").tobytes() + pixels.tobytes())
    (checkout / f"-{NASTY}.labels").write_bytes(np.array([0x801, 24], ">u4").tobytes() + labels.tobytes())
    (checkout / f"-{NASTY}").write_text("\n".join("abcdef"))
    (checkout / f"-{NASTY}.bin").write_bytes(rng.integers(0, 6, (24, 3073), np.uint8).tobytes())
    np.savez(checkout / f"-{NASTY}.npz", images=pixels, labels=labels)
    (checkout / f"{NASTY}.txt").write_text("".join(f"{LINE}/{i}.png {i % 6}\n" for i in range(24)))
    (checkout / f"-{NASTY}.paths").write_text("".join(f"{LINE}/{i}.png\n" for i in range(24)))
    with zipfile.ZipFile(tmp_path / f"{NASTY}.zip", "w") as packed:
        packed.write(checkout / f"-{NASTY}.npz", f"-d/{NASTY}.npz")
        for i, image in enumerate(pixels):
            with packed.open(f"-d/{NASTY}/{LINE}/{i}.png", "w") as file:
                Image.fromarray(image).save(file, "PNG")
    digest = hashlib.sha256((tmp_path / f"{NASTY}.zip").read_bytes()).hexdigest()
    config = files_config(tiny_config, url, tmp_path, digest)
    (checkout / "config.yaml").write_text(yaml.safe_dump(config))
    onnx.save(_renamed(to_onnx(tiny_network(0)), "ip1", NASTY), checkout / f"-{NASTY}.onnx")
    made = [f"results/tiny/{name}/images/test-1-of-1.npz" for name in config["datasets"]]
    made += ["results/exported/npz/network/fold/network.onnx", "results/tiny/npz/own/support.json"]
    (checkout / f"{NASTY}.py").write_text(f"import sys\nassert sys.argv[1] == {NASTY!r}\nprint('1\\n' * 8, end='')\n")
    made.append("results/exported/npz/reference/numbers.npz")
    (checkout / f"-{NASTY}.spec").write_text(text_of(values_of(NV_SMALL)))
    made += [f"results/tiny/{name}/images/calibration-entropy.npz" for name in ("other", "unlabelled")]
    finished = run(checkout, *made)
    assert finished.returncode == 0, finished.stdout[-4000:] + finished.stderr[-4000:]
    assert all((checkout / path).is_file() for path in made)


# ---- programs in containers, on boards, on the virtual platform


def compiler_config(launcher: str) -> dict[str, Any]:
    """Return the compiler in a container, with a canary in every key that takes free text."""
    return {"container": f"docker://a{NASTY}", "launcher": launcher, "path": f"/{NASTY}/nvdla_compiler"}


def device_configs(folder: Path) -> dict[str, dict[str, Any]]:
    """Return each kind of device with a canary in every key that takes free text."""
    program = str(folder / NASTY / "nvdla_runtime")
    image = f"docker://a{NASTY}"
    limits = {"time_limit": 30, "launcher": "apptainer"}
    platform = {
        "path": str(folder / NASTY / "aarch64_toplevel"),
        "container": image,
        "config": f"/{NASTY}.lua",
        "files": str(folder / NASTY),
        "user": LINE,
        "password": LINE,
        "mount_tag": NASTY,
        "mount_point": f"/mnt/{NASTY}",
        "modules": {target: [f"{NASTY}.ko"] for target in ("nv_full", "nv_large", "nv_small")},
        "boot_time_limit": 20,
    }
    board = {"host": "board", "folder": str(folder / "board"), "identity_file": f"{NASTY}.key", "reconnect_limit": 0}
    return {
        "container": {**limits, "device": "local", "path": program, "container": image},
        "docker": {**limits, "device": "local", "path": program, "container": image, "launcher": "docker"},
        "ssh": {**limits, "device": "ssh", "path": program, "ssh": board},
        "virtual-platform": {
            **limits,
            "device": "virtual-platform",
            "path": "nvdla_runtime",
            "virtual_platform": {"launcher": "apptainer", **platform},
        },
    }


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """Return a bench with every stand-in on the path."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    bench = Bench(tmp_path, monkeypatch)
    for name in ("apptainer", "docker", "ssh", "scp"):
        install(name, tmp_path / "bin")
    for name in ("nvdla_runtime", "nvdla_compiler", "aarch64_toplevel"):
        install(name, tmp_path / NASTY)
    for name in ("libnvdla_runtime.so", f"{NASTY}.ko"):
        (tmp_path / NASTY / name).touch()
    (tmp_path / "board").mkdir()
    bench.tell(
        PATH=f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}",
        FAKE_CONNECTIONS=tmp_path / "connections",
        FAKE_BOOTS=tmp_path / "boots",
        FAKE_USER=LINE,
        FAKE_PASSWORD=LINE,
        FAKE_MOUNT=f"/mnt/{NASTY}",
        FAKE_LOADABLE=bench.loadable,
    )
    return bench


@pytest.mark.parametrize("kind", ["container", "docker", "ssh", "virtual-platform"])
def test_devices(bench: Bench, kind: str) -> None:
    if kind == "virtual-platform":
        pytest.importorskip("pexpect")
    result = bench.run(device_of(device_configs(bench.folder)[kind], NV_SMALL))
    assert np.array_equal(result.outputs["prob"], bench.expected)


@pytest.mark.parametrize("launcher", ["apptainer", "docker"])
def test_the_compiler_in_a_container(bench: Bench, launcher: str) -> None:
    config = {**compiler_config(launcher), "path": str(bench.folder / NASTY / "nvdla_compiler")}
    data, report = NvdlaCompiler.from_config(config).compile(tiny_network(0), TABLE, NV_SMALL, "int8", "per-filter")
    assert data == bench.loadable.read_bytes()
    assert len(report["sha256"]["nvdla_compiler"]) == 64


@pytest.mark.parametrize("key", ["user", "password"])
def test_a_second_line_for_the_console_is_refused(tiny_config: dict[str, Any], tmp_path: Path, key: str) -> None:
    """The console's shell would run it: there is no quoting at a login prompt."""
    device = device_configs(tmp_path)["virtual-platform"]
    device["virtual_platform"][key] = "root\ntouch canary"
    with pytest.raises(ConfigError, match=rf"backends\.nvdla_runtime\.virtual_platform\.{key}: "):
        load_configuration({**tiny_config, "backends": {"nvdla_runtime": device}})
