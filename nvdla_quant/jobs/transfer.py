"""One file over HTTP, in several attempts, each going on where the last one ended."""

import logging
import time
from pathlib import Path

import requests
from requests import RequestException

from nvdla_quant.jobs.logs import Progress

__all__ = ["RequestException", "download"]

logger = logging.getLogger(__name__)

CHUNK = 1 << 16
"""Bytes handled at once; where a transfer breaks off, fewer than that are lost."""
TIMEOUT = 30
"""Seconds without any byte."""
ATTEMPTS = 5
FIRST_WAIT = 1.0
"""Seconds before the second attempt; doubled for each further one."""


def download(url: str, part: Path, progress: Progress | None) -> None:
    """Fetch `url` into `part`, going on where it ends; a part that the server cannot go on with is removed.

    Raises
    ------
    requests.RequestException
        It cannot be had, after the last attempt; what came may be in `part`.
    """
    for attempt in range(1, ATTEMPTS + 1):
        try:
            _transfer(url, part, progress)
        except RequestException as error:
            status = None if error.response is None else error.response.status_code
            final = status is not None and 400 <= status < 500 and status not in (408, 429)
            if final or attempt == ATTEMPTS:
                raise
            wait = FIRST_WAIT * 2 ** (attempt - 1)
            logger.warning("%s: %s; attempt %d of %d in %g s", url, error, attempt + 1, ATTEMPTS, wait)
            time.sleep(wait)
        else:
            return


def _transfer(url: str, part: Path, progress: Progress | None) -> None:
    done = part.stat().st_size if part.exists() else 0
    # Content as it is stored: a digest is of that, and ranges count its bytes.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={done}-"} if done else {})
    with requests.get(url, stream=True, timeout=TIMEOUT, headers=headers) as response:
        if response.status_code == requests.codes.requested_range_not_satisfiable:
            # All has come already, or the file is another one now; the digest will tell.
            if response.headers.get("Content-Range") == f"bytes */{done}":
                return
            part.unlink()
            raise requests.ConnectionError(f"the server has no byte {done}; what had come was thrown away")
        response.raise_for_status()
        resumed = response.status_code == requests.codes.partial_content
        length = response.headers.get("Content-Length")
        done = done if resumed else 0
        total = None if length is None else done + int(length)
        try:
            with part.open("ab" if resumed else "wb") as stream:
                for chunk in response.iter_content(CHUNK):
                    stream.write(chunk)
                    done += len(chunk)
                    if progress is not None and total is not None:
                        progress(done, total)
            if total is not None and done != total:
                raise requests.ConnectionError(f"ended after {done} of {total} bytes")
        except BaseException:
            if not (resumed or response.headers.get("Accept-Ranges") == "bytes"):
                part.unlink(missing_ok=True)
            raise
