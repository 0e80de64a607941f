"""Which images calibrate and which test, and the file that holds them."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nvdla_quant.errors import DatasetError
from nvdla_quant.images.datasets import NpzRecord, open_dataset
from nvdla_quant.images.preprocess import Preprocessing
from nvdla_quant.images.selection import ImageBundle, draw, gather, read_images, split, write_images
from nvdla_quant.jobs.files import write_npz


@given(size=st.integers(1, 300), seed=st.integers(0, 2**32), data=st.data())
def test_split_is_a_partition(size: int, seed: int, data: st.DataObject) -> None:
    pool = data.draw(st.integers(0, size - 1))
    parts = split(size, pool, seed)
    assert len(parts.calibration) == pool
    assert sorted([*parts.calibration, *parts.test]) == list(range(size))
    assert np.all(np.diff(parts.test) > 0)
    fewer = data.draw(st.integers(1, size - pool))
    part = split(size, pool, seed, test=fewer)
    np.testing.assert_array_equal(part.calibration, parts.calibration)
    assert len(part.test) == fewer
    assert set(part.test) <= set(parts.test)


def test_choice_is_the_order_of_pcg64s_raw_numbers() -> None:
    # First rows of numpy's own pcg64-testset-1.csv, for the seed 0xdeadbeaf.
    raw = [0x60D24054E17A0698, 0xD5E79D89856E4F12, 0xD254972FE64BD782]
    assert np.random.PCG64(0xDEADBEAF).random_raw(3).tolist() == raw
    assert draw(np.array([10, 20, 30]), 3, seed=0xDEADBEAF).tolist() == [10, 30, 20]


def test_shipped_choice_never_changes() -> None:
    """Published figures rest on this pool of 500 of 5,000: recorded once, with numpy 2.4."""
    digest = hashlib.sha256(split(5000, 500).calibration.astype("<i8").tobytes()).hexdigest()
    assert digest == "09b2b6a16517d35a171d3be9f25ed06f5fa1ed04ab3b7a3b7b87143032f08d40"


def test_draws_depend_on_the_seed_and_never_repeat() -> None:
    pool = split(1000, 100).calibration
    first, second = draw(pool, 60, seed=0), draw(pool, 60, seed=1)
    assert len(set(first)) == 60
    assert set(first) <= set(pool)
    assert set(first) != set(second)
    np.testing.assert_array_equal(draw(pool, 30, seed=0), first[:30])
    assert set(draw(pool, 100, seed=2)) == set(pool)


@pytest.mark.parametrize(("pool", "test"), [(10, None), (-1, None), (4, 7), (4, 0)])
def test_impossible_splits(pool: int, test: int | None) -> None:
    with pytest.raises(DatasetError, match="10 images"):
        split(10, pool, test=test)


@pytest.mark.parametrize("count", [0, 11])
def test_impossible_draws(count: int) -> None:
    with pytest.raises(DatasetError, match=f"{count} images asked for, the pool holds 10"):
        draw(np.arange(10), count, seed=0)


@pytest.fixture
def bundle(tmp_path: Path) -> ImageBundle:
    images = np.random.default_rng(0).integers(0, 256, (5, 4, 4, 3)).astype(np.uint8)
    path = tmp_path / "set.npz"
    write_npz(path, {"images": images, "labels": np.arange(5)})
    dataset = open_dataset(NpzRecord(path))
    return gather(dataset, np.array([3, 1]), Preprocessing("bgr"), (3, 4, 4), {"seed": 0, "pool": 2})


def test_gather_prepares_in_the_order_asked_and_says_from_what(bundle: ImageBundle, tmp_path: Path) -> None:
    images = np.load(tmp_path / "set.npz")["images"]
    np.testing.assert_array_equal(bundle.pixels, images[[3, 1]][..., ::-1].transpose(0, 3, 1, 2))
    assert (bundle.labels.tolist(), bundle.indices.tolist(), bundle.names) == ([3, 1], [3, 1], ("3", "1"))
    digest = hashlib.sha256((tmp_path / "set.npz").read_bytes()).hexdigest()
    assert dict(bundle.manifest) == {
        "selection": {"seed": 0, "pool": 2},
        "files": [{"key": "path", "name": "set.npz", "sha256": digest}],
        "pixels_sha256": hashlib.sha256(bundle.pixels.tobytes()).hexdigest(),
    }


def test_gather_names_the_image_that_does_not_fit(tmp_path: Path, bundle: ImageBundle) -> None:
    dataset = open_dataset(NpzRecord(tmp_path / "set.npz"))
    with pytest.raises(DatasetError, match=r"set.npz, image 2: image: \(3, 4, 4\) pixels .* input is \(3, 5, 5\)"):
        gather(dataset, np.array([2]), Preprocessing("bgr"), (3, 5, 5), {})
    with pytest.raises(DatasetError, match=r"set.npz, image 2: image: 4 x 4 pixels .* before the crop to 5 x 5"):
        gather(dataset, np.array([2]), Preprocessing("bgr", crop=(5, 5)), (3, 5, 5), {})


def test_bundle_round_trip_with_the_same_bytes_each_time(bundle: ImageBundle, tmp_path: Path) -> None:
    paths = tmp_path / "a.npz", tmp_path / "b.npz"
    for path in paths:
        write_images(path, bundle)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    again = read_images(paths[0])
    for name in ("pixels", "labels", "indices"):
        np.testing.assert_array_equal(getattr(again, name), getattr(bundle, name))
        assert getattr(again, name).dtype == getattr(bundle, name).dtype
    assert again.names == bundle.names
    assert dict(again.manifest) == dict(bundle.manifest)


def test_bundle_without_labels(bundle: ImageBundle, tmp_path: Path) -> None:
    """It differs in saying so: a bundle whose labels were lost is damaged."""
    images, path = np.load(tmp_path / "set.npz")["images"], tmp_path / "bare.npz"
    write_npz(path, {"images": images})
    bare = gather(open_dataset(NpzRecord(path)), np.array([3, 1]), Preprocessing("bgr"), (3, 4, 4), {})
    np.testing.assert_array_equal(bare.pixels, bundle.pixels)
    assert bare.manifest["labelled"] is False
    write_images(path, bare)
    assert sorted(np.load(path).files) == ["indices", "manifest", "names", "pixels"]
    again = read_images(path)
    assert (again.labels, len(again), again.names, dict(again.manifest)) == (None, 2, ("3", "1"), dict(bare.manifest))
    with pytest.raises(DatasetError, match="2 without labels, expected the class of each"):
        assert again.classes is None
    np.testing.assert_array_equal(bundle.classes, [3, 1])
    write_images(path, bundle)
    write_npz(path, {name: array for name, array in np.load(path).items() if name != "labels"})
    with pytest.raises(DatasetError, match="not a readable bundle"):
        read_images(path)


def test_labelled_bundles_are_the_bytes_that_they_were(bundle: ImageBundle, tmp_path: Path) -> None:
    """Recorded before images without labels were known (commit ac5e301)."""
    write_images(tmp_path / "a.npz", bundle)
    digest = hashlib.sha256((tmp_path / "a.npz").read_bytes()).hexdigest()
    assert digest == "8ac26ac59a4fa72d29d70d1662bc2a3eed8e423e70cb7d96dc68b17bc99a1ccc"


def test_damaged_bundles_are_refused(bundle: ImageBundle, tmp_path: Path) -> None:
    path = tmp_path / "images.npz"
    for content in (b"", b"nothing"):
        path.write_bytes(content)
        with pytest.raises(DatasetError, match=r"images.npz: not a readable bundle"):
            read_images(path)
    with pytest.raises(DatasetError, match="not a readable bundle"):
        read_images(tmp_path / "absent.npz")
    write_npz(path, {"pixels": bundle.pixels})
    with pytest.raises(DatasetError, match="not a readable bundle"):
        read_images(path)
    write_images(path, bundle)
    arrays = dict(np.load(path))
    write_npz(path, {**arrays, "pixels": arrays["pixels"] ^ 1})
    with pytest.raises(DatasetError, match=r"images.npz: the pixels have SHA-256 .*, the manifest says"):
        read_images(path)
    write_npz(path, {**arrays, "labels": arrays["labels"][:1]})
    with pytest.raises(DatasetError, match="1 labels"):
        read_images(path)
