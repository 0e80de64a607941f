"""Every rule keeps the contract: log, benchmark, environment, resources, a script of its own name; no `run:`."""

import ast
import inspect
import re
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from snakemake.scheduling.job_scheduler import JobScheduler

from nvdla_quant.jobs import provenance

RULE = re.compile(r"^rule (\w+):\n((?:    .*\n|\n)+)", re.MULTILINE)
PROGRAMS = {"calibrate_with_tensorrt", "run_tensorrt"}
"""Rules that start a program of the package, in an interpreter that Snakemake's scripts may not run in."""
DISTRIBUTION_OF = {
    "PIL": "pillow",
    "google": "protobuf",
    "onnx_ir": "onnx-ir",
    "vl_convert": "vl-convert-python",
    "yaml": "pyyaml",
}


def rules_of(repository: Path) -> dict[str, str]:
    return {
        name: body
        for path in sorted((repository / "rules").glob("*.smk"))
        for name, body in RULE.findall(path.read_text())
    }


@cache
def imported_by_file(path: Path) -> frozenset[str]:
    """Return the modules, by their first name, that a file imports."""
    imported = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            imported.add(node.module.split(".")[0])
    return frozenset(imported)


@cache
def imported_by(script: Path) -> frozenset[str]:
    """Return the same of a script and all that it imports of the package."""
    return frozenset().union(*map(imported_by_file, (script, *provenance.source_files(script))))


def test_there_are_rules(repository: Path) -> None:
    assert len(rules_of(repository)) == 44 + 1


def test_every_rule_keeps_the_contract(repository: Path) -> None:
    for name, body in rules_of(repository).items():
        for directive in ("log", "benchmark", "conda", "threads", "resources", "message", "input", "output"):
            found = re.search(rf"^    {directive}:", body, re.MULTILINE)
            # A download has a URL for its input.
            assert found or (name, directive) == ("download_file", "input"), f"{name}: no {directive}"
        assert f'mem_mb=MEMORY.of("{name}")' in body, name
        assert "runtime=" in body, name
        if name in PROGRAMS:
            assert not re.search(r"^    script:", body, re.MULTILINE), name
            assert 'code=digest_of("nvdla_quant.calibration.tensorrt")' in body, name
            command = body[body.index("    shell:") :]
            for placeholder in re.findall(r"\{[^}]*\}", command):
                assert placeholder.endswith(":q}"), f"{name}: {placeholder} reaches the shell unquoted"
        else:
            assert f'"../scripts/{name}.py"' in body, name
            assert f'code=code_of("{name}")' in body, name
            assert not re.search(r"^    shell:", body, re.MULTILINE), name
        assert not re.search(r"^    run:", body, re.MULTILINE), name


def test_scripts_are_adapters(repository: Path) -> None:
    """At most 15 lines and no definitions."""
    scripts = sorted((repository / "scripts").glob("*.py"))
    assert {path.stem for path in scripts} == set(rules_of(repository)) - PROGRAMS
    for path in scripts:
        tree = ast.parse(path.read_text())
        assert ast.get_docstring(tree), path.name
        lines = len(path.read_text().splitlines())
        assert lines <= 15, f"{path.name}: {lines} lines"
        assert not any(isinstance(node, ast.FunctionDef | ast.ClassDef) for node in ast.walk(tree)), path.name


def test_environments_cover_what_their_scripts_import(repository: Path) -> None:
    """The packages that a script's import closure names are in the conda environment of its rule, each pinned."""
    for name, body in rules_of(repository).items():
        if name in PROGRAMS:  # See test_tensorrt.
            assert '"../envs/tensorrt-8.5.yaml"' in body
            continue
        environment = yaml.safe_load((repository / "rules" / re.search(r'"(\.\./envs/.+?)"', body)[1]).read_text())
        assert environment["channels"] == ["conda-forge", "nodefaults"]
        pins = dict(re.fullmatch(r"([\w-]+) =([\d.]+)", item).groups() for item in environment["dependencies"])
        imported = imported_by(repository / "scripts" / f"{name}.py")
        needed = {DISTRIBUTION_OF.get(module, module) for module in imported - set(sys.stdlib_module_names)}
        needed = {"python-flatbuffers" if module == "flatbuffers" else module for module in needed - {"nvdla_quant"}}
        assert needed <= set(pins), f"{name}: {needed - set(pins)} missing in the environment"


def test_pins_are_what_the_package_asks_for(repository: Path) -> None:
    """Also the interpreter; what TensorRT's own environments pin is in test_tensorrt."""
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    asked = {one.name: one.specifier for one in map(Requirement, [*project["dependencies"], *extras["vp"]])}
    asked |= {"python": SpecifierSet(project["requires-python"]), "python-flatbuffers": asked["flatbuffers"]}
    for name in ("quantization", "report"):
        environment = yaml.safe_load((repository / "envs" / f"{name}.yaml").read_text())
        pins = dict(item.split(" =") for item in environment["dependencies"])
        assert pins.keys() <= asked.keys()
        for package, version in pins.items():
            assert asked[package].contains(version), f"{name}: {package} {version}, asked for {asked[package]}"


def test_every_environment_is_some_rule_s(repository: Path) -> None:
    named = set(re.findall(r"\.\./envs/([^\"]+)", "".join(rules_of(repository).values())))
    assert named == {path.name for path in (repository / "envs").glob("*.yaml")}


@pytest.mark.parametrize("snakefile", ["Snakefile", "workflow/Snakefile"])
def test_lint_is_clean(repository: Path, snakefile: str) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "snakemake", "--lint", "--snakefile", snakefile],
        cwd=repository,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "Congratulations" in result.stdout + result.stderr


def test_snakefile_is_a_table_of_contents(repository: Path) -> None:
    assert len((repository / "Snakefile").read_text().splitlines()) <= 60


def test_both_snakefiles_are_alike(repository: Path) -> None:
    """Snakemake cannot include files beside a Snakefile in the top folder of a repository that it reads from afar."""
    top, other = ((repository / name).read_text() for name in ("Snakefile", "workflow/Snakefile"))
    begin = "from snakemake.utils"
    assert other.partition(begin)[2].replace('"../', '"') == top.partition(begin)[2]


def test_what_the_rules_share_is_a_page_of_wiring(repository: Path) -> None:
    assert len((repository / "rules" / "common.smk").read_text().splitlines()) < 150


def test_the_hook_lifts_the_limit_that_the_installed_snakemake_has() -> None:
    """Were it elsewhere, or not optional any more, the hook would do nothing, or harm."""
    assert "if self.job_rate_limiter is None:" in inspect.getsource(JobScheduler.job_selector)
