"""Sample sheets: the same records as in YAML, and mistakes named by file, row and column."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from nvdla_quant.configuration.load import load_configuration
from nvdla_quant.errors import ConfigError

LENET, RESNET = "resources/lenet-mnist", "resources/resnet20-fashion-mnist"
MODELS = f"""name\tprototxt\tcaffemodel\tpreprocessing.channels\tpreprocessing.mean\tpreprocessing.scale
lenet\t{LENET}/deploy.prototxt\t{LENET}/lenet.caffemodel\tgray\t\t0.00390625

resnet20\t{RESNET}/deploy.prototxt\t{RESNET}/resnet20.caffemodel\tgray\t[73]\t0.01
"""
MNIST = "{format: idx, images: resources/mnist/images-idx3-ubyte.gz, labels: resources/mnist/labels-idx1-ubyte.gz}"
FASHION = "resources/fashion-mnist"
CALIBRATION = f"idx\t{FASHION}/calibration-images-idx3-ubyte.xz\t{FASHION}/calibration-labels-idx1-ubyte.gz"
TEST = f"{{format: idx, images: {FASHION}/t10k-images-idx3-ubyte.xz, labels: {FASHION}/t10k-labels-idx1-ubyte.gz}}"
DATASETS = f"""name\tsource\tcalibration_source.format\tcalibration_source.images\tcalibration_source.labels\
\tcalibration_pool
mnist\t{MNIST}\t\t\t\t500
fashion-mnist\t{TEST}\t{CALIBRATION}\t
"""
CASES = "model\tdataset\nlenet\tmnist\nresnet20\tfashion-mnist\n"
VARIANTS = """precision\ttargets\tmode\tcalibrator
fp16\t[nv_full]\t\t
int8\t\tper-kernel\tentropy
int8\t\tper-filter\tentropy
int8\t\tper-kernel\tminmax
int8\t\tper-filter\tminmax
"""
SHEETS = {"models": MODELS, "datasets": DATASETS, "cases": CASES, "variants": VARIANTS}

Load = Callable[..., Any]


@pytest.fixture
def config(repository: Path) -> dict[str, Any]:
    return yaml.safe_load((repository / "config.yaml").read_text())


@pytest.fixture
def load(config: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """Load the default configuration with sheets in place of records."""
    monkeypatch.chdir(tmp_path)

    def load(**sheets: str) -> Any:
        for key, text in sheets.items():
            Path(f"{key}.tsv").write_text(text, encoding="utf-8", newline="")
        return load_configuration(config | {key: f"{key}.tsv" for key in sheets})

    return load


@pytest.mark.parametrize("keys", [["models"], ["datasets"], ["cases"], ["variants"], list(SHEETS)])
def test_the_default_configuration_as_sheets(load: Load, config: dict[str, Any], keys: list[str]) -> None:
    assert load(**{key: SHEETS[key] for key in keys}) == load_configuration(config)


def test_files_of_other_programs(load: Load, config: dict[str, Any]) -> None:
    """A byte order mark, line ends of Windows, blanks around cells, rows that end early."""
    text = "\ufeff" + VARIANTS.replace("\n", "\r\n").replace("fp16\t[nv_full]\t\t", " fp16 \t[nv_full]")
    assert load(variants=text) == load_configuration(config)


@pytest.mark.parametrize(
    ("key", "old", "new", "said"),
    [
        ("models", "gray\t[73]", "grey\t[73]", r"row 4, column preprocessing.channels: 'grey' is not one of"),
        ("models", "[73]", "[73, a]", r"row 4, column preprocessing.mean: 'a' is not of type 'number'"),
        ("models", "[73]", "[73", r"row 4, column preprocessing.mean: '\[73' is not YAML: expected"),
        ("models", ".mean", ".meen", r"row 4, column preprocessing.meen: unknown key 'meen' \(did you mean 'mean'\?\)"),
        ("models", "resources/lenet-mnist/deploy.prototxt", "", r"row 2, column prototxt: missing 'prototxt'"),
        ("models", "resnet20\t", "ResNet\t", r"row 4, column name: 'ResNet' is no name .* not allowed are 'R'"),
        ("models", "resnet20\t", "lenet\t", r"row 4, column name: 'lenet' stands twice"),
        ("models", "resnet20\tresources", "\tresources", r"row 4, column name: a record needs a name"),
        ("models", "caffemodel\t", "prototxt\t", r"row 1: two columns are called 'prototxt'"),
        ("models", "caffemodel\t", "\t", r"row 1: column 3 has no name"),
        ("datasets", "gz}\t\t\t\t500", "gz}\t\t\t\t", r"row 2.*: give exactly one of calibration_source"),
        (
            "datasets",
            "{format: idx, images: resources/m",
            "{format: idy, images: resources/m",
            r"row 2, column source: ",
        ),
        ("datasets", "source\tcal", "calibration_source\tcal", r"row 3, column calibration_source.format: other"),
        ("cases", "resnet20", "resnet21", r"row 3, column model: no model is called 'resnet21'"),
        ("variants", "entropy\nint8\t\tper-kernel", "entrpy\nint8\t\tper-kernel", r"row 4, column calibrator: no cal"),
        ("variants", "fp16\t[nv_full]\t", "fp16\t[nv_full]\tper-filter", r"row 2, column mode: only an int8"),
        ("variants", "minmax\nint8\t\tper-filter", "minmax\nint8\t\tper-kernel", r"row 6: two variants are called"),
        ("variants", "fp16\t[nv_full]\t\t", "fp16\t[nv_full]\t\t\t\t", r"not a TSV file .* line 2"),
    ],
)
def test_mistakes_are_named_by_file_row_and_column(load: Load, key: str, old: str, new: str, said: str) -> None:
    assert old in SHEETS[key]
    with pytest.raises(ConfigError, match=rf"^config: .*{key}\.tsv[,:] {said}"):
        load(**{key: SHEETS[key].replace(old, new, 1)})


@pytest.mark.parametrize("text", ["", "model\tdataset\n", "model\tdataset\n\t\n\n"])
def test_a_sheet_without_a_row_is_refused(load: Load, text: str) -> None:
    with pytest.raises(ConfigError, match=r"cases\.tsv: (a sheet without a row|not a TSV file)"):
        load(cases=text)


def test_what_is_no_sheet_is_refused(config: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cases: .*none\.tsv: No such file"):
        load_configuration(config | {"cases": str(tmp_path / "none.tsv")})
    with pytest.raises(ConfigError, match=r"models: 'models\.csv' is neither records nor a sheet"):
        load_configuration(config | {"models": "models.csv"})


def test_mistakes_elsewhere_keep_their_words(load: Load, config: dict[str, Any]) -> None:
    config["variants"] = [{"precision": "fp16", "mode": "per-filter"}]
    with pytest.raises(ConfigError, match=r"config: variants\[0\]\.mode: only an int8"):
        load(cases=CASES)


@pytest.mark.parametrize("module", ["nvdla_quant.cli", "nvdla_quant.configuration.load"])
def test_pandas_is_imported_only_where_it_is_used(module: str) -> None:
    code = f"import sys, {module}; sys.exit('pandas' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
