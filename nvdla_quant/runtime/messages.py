"""What a run printed, in a line of a message: the cause, wherever it stands among other text.

nvdla/sw has four ways to report one: ``(DLA_TEST) Error 0x00000004: ... (in FILE, function F(), line N)``, passed up
with nothing but the place (``ErrorLogging.c``); ``libnvdla<1> ...`` of the library, 0 and 1 are errors (``Check.cpp``);
plain text of the Linux port, such as ``NvDlaSubmit: Error IOCTL failed (Connection timed out)`` (``nvdla.c``); and that
of the programs (``main.cpp``, ``RuntimeTest.cpp``, ``Emulator.cpp``). The library goes on after some of them.
"""

import re

SUBMIT_FAILED = re.compile(r"\bNvDlaSubmit: Error IOCTL failed")
"""The kernel gave a task back: it failed, or the driver has a time limit and the hardware did not end."""

_CAUSES = (
    re.compile(r"libnvdla<[01]> .*"),
    re.compile(r"\bNvDla\w+: Error IOCTL failed.*"),
    re.compile(r"\b[Ff]ailed to (?:map memory|allocate handle|get fd for handle)\b.*"),
    re.compile(r"Unknown (?:image type: |op type \d).*"),
    re.compile(r"Number of mean values should not be greater.*"),
    re.compile(r"Usage: .*"),
    # Reported for every image of fewer channels than the four that it is padded to: it means nothing.
    re.compile(r"\(DLA\w*\) Error 0x\w+:(?! Mismatched channel)(?! *\(propagating).*"),
)
_PASSED_UP = re.compile(r"\(DLA\w*\) Error 0x\w+: *\(propagating.*")
# Memory that is given back when the dump is written already, and what is reported for every image.
_NOTHING = re.compile(r"\bFailed to (?:unmap memory|destroy handle)\b|Mismatched channel")
_QUOTED = 3
"""Lines of a message; more would hide the first, which is the cause."""


def faults(text: str) -> list[str]:
    """Return the lines that say that the run failed; those that pass a failure up only where nothing else is."""
    lines = text.splitlines()
    causes = [match[0].strip() for pattern in _CAUSES for line in lines if (match := pattern.search(line))]
    passed = [match[0].strip() for line in lines if (match := _PASSED_UP.search(line))]
    return list(dict.fromkeys(causes or passed))


def said(text: str) -> str:
    """Return what to quote of a run that failed: its causes, or the last lines."""
    if found := faults(text):
        return "; ".join(found[:_QUOTED]) + _advice(text)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    lines = [line for line in lines if not _NOTHING.search(line)] or lines
    return repr("\n".join(lines[-_QUOTED:])[-400:])


def _advice(text: str) -> str:
    """Return what to do about a cause that is known."""
    if "failed to open dla device" in text:
        return " (is NVIDIA's kernel driver loaded, and may this user open /dev/dri/renderD128?)"
    return ""
