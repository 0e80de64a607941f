"""Models and images by URL and out of archives, through the rules."""

import copy
import hashlib
import threading
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from nvdla_quant.configuration.load import load_configuration
from tests.sweeps import plan, run


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """Serve a folder by HTTP on this machine."""
    folder = tmp_path / "served"
    folder.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def checkout(
    new_checkout: Callable[..., Path], tiny_config: dict[str, Any], served: tuple[Path, str]
) -> tuple[Path, dict[str, Any], Path]:
    """Return a checkout whose model is an archive like the article's on a server, its configuration, the archive."""
    folder, url = served
    checkout = new_checkout()
    archive = folder / "tiny caffe.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        packed.write(checkout / "inputs" / "deploy.prototxt", "tiny-caffe/deploy.prototxt")
        packed.write(checkout / "inputs" / "tiny.caffemodel", "tiny-caffe/tiny.caffemodel")
    config = copy.deepcopy(tiny_config)
    source = {"url": f"{url}/tiny%20caffe.zip", "sha256": hashlib.sha256(archive.read_bytes()).hexdigest()}
    for key, name in (("prototxt", "deploy.prototxt"), ("caffemodel", "tiny.caffemodel")):
        config["models"]["tiny"][key] = {**source, "member": f"tiny-caffe/{name}"}
    (checkout / "config.yaml").write_text(yaml.safe_dump(config))
    return checkout, config, archive


TARGET = "results/tiny/noise/network/fold/deploy.prototxt"


def test_a_model_comes_out_of_a_downloaded_archive(checkout: tuple[Path, dict[str, Any], Path]) -> None:
    folder, config, _ = checkout
    assert {name: plan(folder, config)[name] for name in ("download_file", "take_member")} == {
        "download_file": 1,
        "take_member": 2,
    }
    result = run(folder, TARGET)
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-4000:]
    (found,) = folder.glob("downloads/*/member/tiny-caffe/deploy.prototxt")
    assert found.read_bytes() == (folder / "inputs" / "deploy.prototxt").read_bytes()
    assert "download_file" not in plan(folder, config)


def test_a_wrong_digest_stops_the_run_with_both(checkout: tuple[Path, dict[str, Any], Path]) -> None:
    folder, config, archive = checkout
    expected = config["models"]["tiny"]["prototxt"]["sha256"]
    archive.write_bytes(archive.read_bytes()[:-1])
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    result = run(folder, TARGET)
    assert result.returncode == 1
    assert f"SHA-256 is {found}, expected {expected}" in result.stdout + result.stderr
    assert [path for path in folder.glob("downloads/**/*") if path.is_file()] == []


def test_an_archive_on_this_machine(checkout: tuple[Path, dict[str, Any], Path]) -> None:
    folder, config, archive = checkout
    for key in ("prototxt", "caffemodel"):
        del config["models"]["tiny"][key]["url"]
        config["models"]["tiny"][key]["archive"] = str(archive)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    assert "download_file" not in plan(folder, config)
    result = run(folder, TARGET)
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-4000:]


@pytest.mark.parametrize("name", ["article", "cifar10", "imagenet"])
def test_ready_configurations_are_valid(repository: Path, name: str) -> None:
    content = yaml.safe_load((repository / "config" / f"{name}.yaml").read_text())
    configuration = load_configuration(content)
    assert configuration.runs
    for source in configuration.sources.values():
        assert source.url is None or source.url.startswith("https://")


@pytest.mark.parametrize("name", ["calibration-size"])
def test_ready_overlays_are_valid(repository: Path, name: str) -> None:
    content = yaml.safe_load((repository / "config.yaml").read_text())
    overlay = yaml.safe_load((repository / "config" / f"{name}.yaml").read_text())
    assert "models" not in overlay
    assert load_configuration({**content, **overlay}).runs
