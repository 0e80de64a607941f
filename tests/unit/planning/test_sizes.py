"""Sizes of networks, arrays and data sets, told without loading them."""

import gzip
import json
import lzma
import struct
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from nvdla_quant.network.files import write_model
from nvdla_quant.planning.sizes import UNKNOWN, NetworkSize, images_in, network_size, size_of, unpacked_bytes
from tests.sweeps import tiny_network

TINY = NetworkSize(64, 64 + 144 + 144 + 36 + 6 + 6, 4 * 9 + 6 * 36)


def test_a_network_has_one_size_however_it_is_told(tmp_path: Path) -> None:
    network = tiny_network(0)
    assert size_of(network) == TINY
    prototxt, noted = tmp_path / "deploy.prototxt", tmp_path / "size.json"
    write_model(network, [prototxt, tmp_path / "weights.caffemodel"])
    noted.write_text(json.dumps(asdict(TINY)))
    assert network_size(str(prototxt)) == network_size(str(noted)) == TINY


def test_a_file_that_changes_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "size.json"
    for size in (TINY, NetworkSize(1, 10**9, 5)):
        path.write_text(json.dumps(asdict(size)))
        assert network_size(str(path)) == size


@pytest.mark.parametrize(
    ("name", "content"), [("a.prototxt", "layer {"), ("a.json", "[1]"), ("a.json", "{"), ("a.json", None)]
)
def test_what_is_wrong_with_a_network_the_job_says(tmp_path: Path, name: str, content: str | None) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_text(content)
    assert network_size(str(path)) == UNKNOWN


def test_arrays_are_counted_as_they_are_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "images.npz"
    np.savez_compressed(path, pixels=np.zeros((100, 3, 20, 20), np.uint8))
    assert path.stat().st_size < 2000
    assert 0 <= unpacked_bytes(str(path)) - 100 * 3 * 20 * 20 < 200
    other = tmp_path / "other"
    other.write_bytes(b"12345")
    assert unpacked_bytes(str(other)) == 5
    with pytest.raises(FileNotFoundError) as caught:
        unpacked_bytes(str(tmp_path / "absent.npz"))
    assert caught.value.filename == str(tmp_path / "absent.npz")


def labels_of(count: int) -> bytes:
    return struct.pack(">HBBI", 0, 8, 1, count) + bytes(count)


@pytest.mark.parametrize("pack", [bytes, gzip.compress, lzma.compress])
def test_images_of_idx(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "labels"
    path.write_bytes(pack(labels_of(300)))
    assert images_in({"format": "idx", "images": "any", "labels": str(path)}) == 300


def test_images_of_the_other_formats(tmp_path: Path) -> None:
    archive, batch, listed = tmp_path / "a.npz", tmp_path / "batch", tmp_path / "list"
    np.savez(archive, images=np.zeros((7, 2, 2), np.uint8), labels=np.arange(7))
    batch.write_bytes(bytes(3073 * 5))
    listed.write_text("a.png 0\nb.png 1\n")
    assert images_in({"format": "npz", "path": str(archive)}) == 7
    assert images_in({"format": "cifar10", "files": [str(batch), str(batch)]}) == 10
    assert images_in({"format": "folder", "images": str(tmp_path), "labels": str(listed)}) == 2
    assert images_in({"format": "folder", "images": str(tmp_path), "list": str(listed)}) == 2


def test_images_without_labels(tmp_path: Path) -> None:
    images, archive, folder = tmp_path / "images", tmp_path / "a.npz", tmp_path / "folder"
    images.write_bytes(gzip.compress(struct.pack(">HBBIII", 0, 8, 3, 300, 1, 1) + bytes(300)))
    np.savez(archive, images=np.zeros((7, 2, 2), np.uint8))
    (folder / "deeper").mkdir(parents=True)
    for name in ("a.png", "b.png", "deeper/c.png"):
        (folder / name).touch()
    assert images_in({"format": "idx", "images": str(images)}) == 300
    assert images_in({"format": "npz", "path": str(archive)}) == 7
    assert images_in({"format": "folder", "images": str(folder)}) == 3


@pytest.mark.parametrize(
    "source", [{"format": "npz", "path": "bad"}, {"format": "idx", "images": "x", "labels": "bad"}]
)
def test_damaged_data_sets_have_no_images(tmp_path: Path, source: dict[str, str]) -> None:
    path = tmp_path / "bad"
    path.write_bytes(b"\x1f\x8bno")
    assert images_in({key: str(path) if value == "bad" else value for key, value in source.items()}) == 0
