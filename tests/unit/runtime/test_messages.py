"""Which lines of nvdla_runtime and its library say that a run failed; the texts are those of nvdla/sw's sources."""

import pytest

from nvdla_quant.runtime.messages import faults, said

PASSED_UP = "(DLA_TEST) Error 0x00000004: (propagating from RuntimeTest.cpp, function run(), line 443)"


@pytest.mark.parametrize(
    "line",
    [
        "libnvdla<1> failed to open dla device",
        "libnvdla<0> anything of the library that is an internal error",
        "libnvdla<1> fillTaskAddressList too many address list entries.",
        "NvDlaSubmit: Error IOCTL failed (Connection timed out)",
        "NvDlaSubmit: Error IOCTL failed (Invalid argument)",
        "Failed to map memory errno=12",
        "Failed to allocate handle err=-1 errno=12",
        "failed to get fd for handle errno=24",
        "Unknown image type: image.PGM",
        "Unknown op type 7",
        "Number of mean values should not be greater than 4",
        "Usage: ./nvdla_runtime [-options] --loadable <loadable_file>",
        "(DLA_TEST) Error 0x00000004: Mismatched width: 9 != 8 (in TestUtils.cpp, line 156)",
        "(DLA_RUNTIME) Error 0x00000002: (in Emulator.cpp, function executeSoftmax(), line 253)",
    ],
)
def test_a_line_that_says_so_is_quoted_wherever_it_stands(line: str) -> None:
    """On a console lines end with a carriage return; the program's last words push the cause out of the last lines."""
    text = "\r\n".join(
        ["creating new runtime context...", line, PASSED_UP, *("Shutdown signal received, exiting",) * 9, ""]
    )
    assert faults(text) == [line]
    assert said(text).startswith(line)


@pytest.mark.parametrize(
    "line",
    [
        "(DLA_TEST) Error 0x00000004: Mismatched channel: 1 != 4 (in TestUtils.cpp, line 160)",
        "libnvdla<2> the loadable specified dla instance 1",
        "libnvdla<3> load num tasks=2",
        "Failed to destroy handle err=-1 errno=22",
        "Failed to unmap memory err=-1, errno=22",
        "execution time = 4821.000000 s",
    ],
)
def test_a_line_that_means_nothing_is_none(line: str) -> None:
    assert faults(f"submitting tasks...\n{line}\nTest pass\n") == []


def test_a_failure_that_is_passed_up_alone_is_one() -> None:
    assert faults(PASSED_UP) == [PASSED_UP]


def test_no_driver_says_what_to_look_at() -> None:
    text = "libnvdla<1> failed to open dla device\nlibnvdla<1> Out of bounds DLA instance 0 requested.\n" + PASSED_UP
    assert said(text) == (
        "libnvdla<1> failed to open dla device; libnvdla<1> Out of bounds DLA instance 0 requested. (is NVIDIA's "
        "kernel driver loaded, and may this user open /dev/dri/renderD128?)"
    )


def test_other_failures_are_quoted_by_their_last_lines() -> None:
    """The loader, a shell or a signal: whoever speaks last, but for what could not be tidied up behind it."""
    text = "a\nb\nlibnvdla_runtime.so: cannot open shared object file: No such file"
    assert said(f"{text}\nFailed to destroy handle err=-1 errno=22") == repr(text)
    assert said("") == "''"
