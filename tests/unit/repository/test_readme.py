"""The README's two commands, which people and machines copy: one line each, right behind its mark."""

import re
import subprocess
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    ("mark", "last"), [("run", "snakemake --cores 2"), ("test", "pytest --numprocesses auto --dist")]
)
def test_a_marked_command_is_one_line_in_a_block_of_its_own(repository: Path, mark: str, last: str) -> None:
    blocks = re.findall(rf"^<!-- {mark} -->\n```bash\n(.*?)^```$", (repository / "README.md").read_text(), re.M | re.S)
    assert len(blocks) == 1
    assert blocks[0].count("\n") == 1
    steps = blocks[0].strip().split(" && ")
    assert [step.split()[0] for step in steps] == ["python3", ".", "pip", last.split()[0]]
    assert steps[-1].startswith(last)
    subprocess.run(["bash", "-n"], input=blocks[0], text=True, check=True)


def test_the_checks_of_a_submission_run_the_marked_test_command(repository: Path) -> None:
    """In an environment of their own: what makes the README's is left out, and nothing else."""
    lines = (repository / ".ci" / "run").read_text().splitlines()
    code = "\n".join(line for line in lines if line.startswith(("command=", "tests=")))
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", f'{code}\necho "$tests"'],
        cwd=repository,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "pytest --numprocesses auto --dist loadfile\n"
    assert done.stdout in (repository / "README.md").read_text()
