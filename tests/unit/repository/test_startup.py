"""Commands and jobs begin at once: what they import before that is counted in modules, not in seconds."""

import ast
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from nvdla_quant.cli import COMMANDS, command_of
from tests.conftest import REPOSITORY

SLOW = {"altair", "jsonschema", "numba", "numpy", "onnx", "onnxruntime", "pandas", "PIL", "requests", "rich"}
SLOW |= {"scipy", "typer", "vl_convert", "yaml"}
SLOW |= {"nvdla_quant.loadable.schema_generated", "nvdla_quant.compiler.compile", "nvdla_quant.emulator.run"}
SLOW |= {"nvdla_quant.verification.verify", "nvdla_quant.report.evidence"}
"""Libraries and modules of this package that take long to import; the rooms that compute stand for their own."""


def test_what_is_slow_has_not_moved() -> None:
    assert not [name for name in SLOW if find_spec(name) is None]


def slow_imports(code: str) -> set[str]:
    """Return the slow modules that the code imports, in a process of its own."""
    ask = f"import sys, atexit\natexit.register(lambda: print('\\n', *sys.modules))\n{code}"
    done = subprocess.run([sys.executable, "-c", ask], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    return SLOW & set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize("option", ["--version", "--help"])
def test_the_command_line_begins_at_once(option: str) -> None:
    code = f"from nvdla_quant.cli import main; sys.argv = ['nvdla-quant', {option!r}]; main()"
    assert slow_imports(code) == {"typer"}


@pytest.mark.parametrize("script", sorted((REPOSITORY / "scripts").glob("*.py")), ids=lambda path: path.stem)
def test_a_job_begins_at_once(script: Path) -> None:
    """What takes long is imported by the function that uses it; of libraries, numpy alone is everybody's."""
    body = ast.parse(script.read_text(encoding="utf-8")).body
    code = "\n".join(ast.unparse(node) for node in body if isinstance(node, ast.Import | ast.ImportFrom))
    assert slow_imports(code) <= {"numpy"}


def test_planning_imports_no_library_that_only_jobs_need() -> None:
    code = (
        "import nvdla_quant.configuration.load, nvdla_quant.configuration.parameters.job, nvdla_quant.jobs.provenance"
    )
    assert slow_imports(code) <= {"jsonschema", "numpy", "yaml"}


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_of_commands_says_what_their_help_does(name: str) -> None:
    """The list is written apart, since it is shown without importing them."""
    help_text = command_of(name).help
    assert help_text is not None
    assert help_text.splitlines()[0] == COMMANDS[name]
