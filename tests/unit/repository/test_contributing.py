"""CONTRIBUTING.md answers where things are: the files that it names exist, and it names every room."""

import re

import pytest

from tests.conftest import REPOSITORY
from tests.unit.repository.test_rooms import MAY_IMPORT

TEXT = (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8")
ANSWERS = dict(re.findall(r"^\| ([^|]+\?[^|]*|[^|]+\?) \| (.+) \|$", TEXT, re.MULTILINE))


def test_there_are_twenty_questions() -> None:
    assert len(ANSWERS) >= 20


@pytest.mark.parametrize("question", ANSWERS)
def test_files_that_answer_exist(question: str) -> None:
    files = re.findall(r"`([^`]+/[^`]+)`", ANSWERS[question])
    assert files
    for file in files:
        assert (REPOSITORY / file).is_file(), file


def test_every_room_is_drawn() -> None:
    drawing = TEXT.split("```")[3]
    rooms = set(MAY_IMPORT) - {"__main__"}
    assert {room for room in rooms if not re.search(rf"\b{room}\b", drawing)} == set()
