"""Each kind of image file becomes the pixels that docs/sweeps.md promises, by another computation; or is refused."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from nvdla_quant.errors import DatasetError
from nvdla_quant.images.decoding import SUFFIXES, read_image

DEEP = np.arange(65536, dtype=np.uint16).reshape(256, 256)
"""Every value of 16 bits once."""


@pytest.mark.parametrize(
    ("mode", "channels"), [("1", 1), ("L", 1), ("LA", 1), ("P", 3), ("RGB", 3), ("RGBA", 3), ("CMYK", 3)]
)
def test_image_modes(tmp_path: Path, mode: str, channels: int) -> None:
    path = tmp_path / ("image.tif" if mode == "CMYK" else "image.png")
    Image.new("RGB", (3, 2), (255, 255, 255)).convert(mode).save(path)
    pixels = read_image(path)
    assert pixels.shape == (2, 3, channels)
    assert pixels.min() == 255


@pytest.mark.parametrize("name", ["deep.png", "deep.tif"])
def test_sixteen_bits_become_their_high_byte(tmp_path: Path, name: str) -> None:
    """Gray and colours alike, as OpenCV reads PNG (of a TIFF in colours it rounds value / 257)."""
    path = tmp_path / name
    colours = np.stack([DEEP, DEEP[::-1], DEEP.T], axis=-1)
    for written, pixels in ((DEEP, DEEP[..., np.newaxis]), (colours[..., ::-1], colours)):  # OpenCV writes BGR.
        assert cv2.imwrite(str(path), written)
        found = read_image(path)
        np.testing.assert_array_equal(found, pixels // 256)
        assert np.abs(found - pixels / 257).max() < 1
        seen = cv2.imread(str(path))
        assert seen is not None
        np.testing.assert_allclose(np.broadcast_to(found, seen.shape), seen[..., ::-1], atol=float(name == "deep.tif"))


def test_old_pillow_opens_sixteen_bits_as_integers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Pillow before 11, which pyproject.toml allows, does with a gray PNG."""
    path = tmp_path / "deep.png"
    Image.fromarray(DEEP).save(path)
    old = Image.fromarray(DEEP.astype(np.int32))
    old.format = "PNG"
    monkeypatch.setattr(Image, "open", lambda _: old)
    np.testing.assert_array_equal(read_image(path)[..., 0], DEEP // 256)


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_numbers_without_a_white_are_refused(tmp_path: Path, kind: type) -> None:
    path = tmp_path / "image.tif"
    Image.fromarray(np.zeros((2, 2), kind)).save(path)
    with pytest.raises(DatasetError, match=r"image.tif: pixels of type [IF] .* expected 8 or 16 bits a channel"):
        read_image(path)


def test_palettes_become_their_colours(tmp_path: Path) -> None:
    """A transparent entry has its colour too."""
    colours, indices = np.array([[10, 20, 30], [200, 0, 100]], np.uint8), np.array([[0, 1, 1], [1, 0, 0]], np.uint8)
    image = Image.fromarray(indices, "P")
    image.putpalette(colours.tobytes())
    for options in ({}, {"transparency": 1}):
        image.save(tmp_path / "image.png", **options)
        np.testing.assert_array_equal(read_image(tmp_path / "image.png"), colours[indices])


@pytest.mark.parametrize("channels", [2, 4])
def test_alpha_is_dropped(tmp_path: Path, channels: int) -> None:
    """What is stored stays, whether it is seen or not: as OpenCV does with the same file."""
    path = tmp_path / "image.png"
    pixels = np.random.default_rng(0).integers(0, 256, (5, 6, channels)).astype(np.uint8)
    pixels[0, :, -1], pixels[1, :, -1] = 0, 255
    Image.fromarray(pixels).save(path)
    found = read_image(path)
    np.testing.assert_array_equal(found, pixels[..., :-1])
    seen = cv2.imread(str(path))
    assert seen is not None
    np.testing.assert_array_equal(np.broadcast_to(found, seen.shape), seen[..., ::-1])


def test_cmyk_jpeg(tmp_path: Path) -> None:
    """Areas of one colour each, which JPEG keeps but for a step; OpenCV's own conversion rounds otherwise."""
    path = tmp_path / "image.jpg"
    inks = np.array([[10, 200, 90, 40], [0, 0, 0, 0], [255, 0, 128, 0], [60, 60, 60, 255]], np.uint8)
    Image.fromarray(np.repeat(np.repeat(inks[np.newaxis], 16, 0), 16, 1), "CMYK").save(path, quality=100)
    found = read_image(path)[8, 8::16]
    real = inks.astype(float)
    np.testing.assert_allclose(found, (255 - real[:, :3]) * (255 - real[:, 3:]) / 255, atol=2)
    seen = cv2.imread(str(path))
    assert seen is not None
    np.testing.assert_allclose(found, seen[8, 8::16, ::-1], atol=4)


def test_orientation_is_ignored(tmp_path: Path) -> None:
    """Each of EXIF's eight leaves the pixels where they are stored; OpenCV turns them unless it is told not to."""
    path, rows = tmp_path / "image.jpg", np.full((16, 32), 30, np.uint8)
    rows[:8, :16] = 220
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation  # Exif 2.3, table 4.
        Image.fromarray(rows).save(path, quality=100, exif=exif)
        stored = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION)
        assert stored is not None
        np.testing.assert_allclose(read_image(path)[..., 0], stored, atol=1)
        np.testing.assert_allclose(read_image(path)[..., 0], rows, atol=2)


def test_first_of_several_images(tmp_path: Path) -> None:
    frames = [Image.new("L", (2, 2), level) for level in (7, 9)]
    frames[0].save(tmp_path / "many.tif", save_all=True, append_images=frames[1:])
    assert read_image(tmp_path / "many.tif").ravel().tolist() == [7] * 4


def test_cut_and_absent_images_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    with pytest.raises(DatasetError, match=r"image.png: no such file"):
        read_image(path)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3)).astype(np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DatasetError, match=r"image.png: cannot be read"):
        read_image(path)


def test_docs_name_the_suffixes(repository: Path) -> None:
    text = (repository / "docs" / "sweeps.md").read_text(encoding="utf-8")
    assert ", ".join(f"`{suffix}`" for suffix in SUFFIXES[:-1]) + f" or `{SUFFIXES[-1]}`" in text
