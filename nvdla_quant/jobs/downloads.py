"""Files by URL and digest, and files out of archives: whole and checked, or not there at all.

A downloaded file is ``downloads/{sha256}/file/{name}``, what is taken out of an archive
``downloads/{sha256}/member/{path}`` or ``downloads/{sha256}/folder/{path}``: the digest in the path is that of the file
or archive, so a path can only ever hold one content.
"""

import hashlib
import logging
import posixpath
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any
from urllib.parse import unquote, urlsplit

from nvdla_quant.errors import ConfigError, DownloadError
from nvdla_quant.jobs.files import atomic_path
from nvdla_quant.jobs.logs import Progress

logger = logging.getLogger(__name__)

FOLDER = "downloads"
PLACED = f"{FOLDER}/placed"
"""Where a user without a network puts files; they are taken from there if their digest is right."""
UNKNOWN = "unknown"
"""Stands for a digest that nobody has recorded; getting the file ends with an error that says what it is."""
CHUNK = 1 << 16
"""Bytes copied at once."""


@dataclass(frozen=True)
class Source:
    """Where a file comes from.

    Attributes
    ----------
    sha256 : str
        Digest of the file or archive, in hexadecimal.
    url : str or None
        Where to get it.
    archive : str or None
        Path of an archive on this machine, in place of `url`.
    member : str or None
        What to take out of the archive; a path that ends with ``/`` is a folder.
    """

    sha256: str
    url: str | None = None
    archive: str | None = None
    member: str | None = None

    @property
    def name(self) -> str:
        """Name of the file or archive."""
        if self.archive is not None:
            return Path(self.archive).name
        return PurePosixPath(unquote(urlsplit(self.url or "").path)).name

    @property
    def folder(self) -> str:
        """Where all that comes from this file or archive lies."""
        if self.sha256 != UNKNOWN:
            return f"{FOLDER}/{self.sha256}"
        place = self.url or self.archive or ""
        return f"{FOLDER}/unknown-{hashlib.sha256(place.encode()).hexdigest()[:16]}"

    @property
    def path(self) -> str:
        """Path of the file or archive itself."""
        return self.archive or f"{self.folder}/file/{self.name}"


def resolve(record: Mapping[str, Any]) -> tuple[str, Source]:
    """Return the path at which the file of a configuration record will lie, and where it comes from.

    Raises
    ------
    ConfigError
        The URL names no file, or the member is not below the archive's top.
    """
    source = Source(**record)
    if not source.name or source.name in (".", ".."):
        raise ConfigError(f"config: {source.url}: the URL ends without a file name")
    if source.member is None:
        return source.path, source
    inside = posixpath.normpath(source.member)
    if inside.startswith(("../", "/")) or inside == "..":
        raise ConfigError(f"config: member {source.member!r} does not lie inside the archive")
    kind = "folder" if source.member.endswith("/") else "member"
    return f"{source.folder}/{kind}/{'all' if inside == '.' else inside}", source


def digest_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def obtain(source: Source, path: Path, placed: Path = Path(PLACED), progress: Progress | None = None) -> None:
    """Write the file of `source` to `path`: from `placed` where it lies there, else by its URL.

    A transfer that breaks off goes on where it stopped if the server can do that, also in the next run: what has come
    lies beside `path`, with ``.part`` behind its name.

    Raises
    ------
    DownloadError
        The file cannot be had, or its digest is not `source.sha256`; nothing is at `path` then.
    """
    assert source.url is not None, "archives on this machine are read where they lie"
    at_hand = placed / source.name
    if at_hand.is_file():
        logger.info("%s: taken from %s", source.name, at_hand)
        _check_digest(at_hand, source, f"remove it or put the right file into {placed}")
        with atomic_path(path) as temporary:
            shutil.copyfile(at_hand, temporary)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    # Here: planning names files and gets none, and requests is slow to import.
    from nvdla_quant.jobs.transfer import RequestException, download

    try:
        download(source.url, part, progress)
    except RequestException as error:
        kept = f" ({part.stat().st_size} bytes are kept in {part})" if part.exists() else ""
        raise DownloadError(
            f"{source.url}: cannot be downloaded: {error}{kept}. Without a network, put the file into {at_hand} "
            "(relative to the working directory) and run again"
        ) from error
    try:
        _check_digest(part, source, "the file is not what was asked for, and was removed")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _check_digest(path: Path, source: Source, advice: str) -> None:
    found = digest_of(path)
    if source.sha256 == UNKNOWN:
        raise DownloadError(
            f"{source.url or source.archive}: no digest is recorded for this file, and none is ever skipped. Its "
            f"SHA-256 is {found}; if you trust where it comes from, put that into the configuration"
        )
    if found != source.sha256:
        raise DownloadError(f"{path}: SHA-256 is {found}, expected {source.sha256}; {advice}")


def take_member(source: Source, archive: Path, path: Path) -> None:
    """Write one file of `archive` to `path`.

    Raises
    ------
    DownloadError
        The archive's digest is wrong, it is damaged or no archive, or holds no such file.
    """
    assert source.member is not None, "resolve makes a path of this kind for members alone"
    _check_archive(source, archive)
    wanted = posixpath.normpath(source.member)
    with _entries(archive) as entries, atomic_path(path) as temporary:
        names = []
        for name, open_entry in entries:
            if posixpath.normpath(name) == wanted and open_entry is not None:
                with open_entry() as stream, temporary.open("wb") as target:
                    shutil.copyfileobj(stream, target, CHUNK)
                return
            names.append(name)
        shown = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
        raise DownloadError(f"{archive}: holds no file {source.member!r}; it holds {shown or 'nothing'}")


def take_folder(source: Source, archive: Path, folder: Path) -> None:
    """Write every file of `archive` that lies below the member, a folder, to `folder`.

    Raises
    ------
    DownloadError
        As `take_member`; or an entry has an absolute name or leads out of the archive, or is neither file nor folder.
        `folder` does not exist then.
    """
    assert source.member is not None, "resolve makes a path of this kind for members alone"
    _check_archive(source, archive)
    top = PurePosixPath(posixpath.normpath(source.member))
    unfinished = folder.with_name(f".{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    try:
        count = 0
        with _entries(archive) as entries:
            for name, open_entry in entries:
                inside = PurePosixPath(posixpath.normpath(name))
                if open_entry is None or not inside.is_relative_to(top):
                    continue
                target = unfinished / inside.relative_to(top)
                target.parent.mkdir(parents=True, exist_ok=True)
                with open_entry() as stream, target.open("xb") as file:
                    shutil.copyfileobj(stream, file, CHUNK)
                count += 1
        if not count:
            raise DownloadError(f"{archive}: holds no file below {source.member!r}")
        shutil.rmtree(folder, ignore_errors=True)
        unfinished.replace(folder)
    except FileExistsError as error:
        raise DownloadError(f"{archive}: holds {error.filename} twice, or as a file and as a folder") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _check_archive(source: Source, archive: Path) -> None:
    if not archive.is_file():
        raise DownloadError(f"{archive}: no such archive; the configuration names it")
    if source.archive is not None:
        _check_digest(archive, source, "it is not the archive that the configuration means")


Opener = Callable[[], IO[bytes]]


@contextmanager
def _entries(archive: Path) -> Iterator[Iterator[tuple[str, Opener | None]]]:
    """Give each entry's name and how to read it (None: a folder); what a damaged archive raises becomes an error."""
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as opened:
                yield _zip_entries(archive, opened)
        elif tarfile.is_tarfile(archive):
            with tarfile.open(archive) as packed:
                yield _tar_entries(archive, packed)
        else:
            raise DownloadError(f"{archive}: neither a zip nor a tar archive")
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise DownloadError(f"{archive}: damaged, or packed in a way that cannot be read: {error}") from error


def _zip_entries(archive: Path, opened: zipfile.ZipFile) -> Iterator[tuple[str, Opener | None]]:
    for entry in opened.infolist():
        # The upper half holds the Unix mode; its type is 0o12 for a link.
        _check_entry(archive, entry.filename, entry.external_attr >> 28 not in (0o12,), "a link")
        yield entry.filename, None if entry.is_dir() else partial(opened.open, entry)


def _tar_entries(archive: Path, packed: tarfile.TarFile) -> Iterator[tuple[str, Opener | None]]:
    for entry in packed:
        _check_entry(archive, entry.name, entry.isfile() or entry.isdir(), "a link or a device")
        yield entry.name, None if entry.isdir() else partial(_opened, packed, entry)


def _opened(packed: tarfile.TarFile, entry: tarfile.TarInfo) -> IO[bytes]:
    stream = packed.extractfile(entry)
    assert stream is not None, "only regular files get here"
    return stream


def _check_entry(archive: Path, name: str, plain: bool, kind: str) -> None:
    inside = posixpath.normpath(name.replace("\\", "/"))
    if inside.startswith(("/", "../")) or inside == ".." or ":" in inside.split("/")[0]:
        raise DownloadError(f"{archive}: entry {name!r} leads out of the archive; nothing was unpacked")
    if not plain:
        raise DownloadError(f"{archive}: entry {name!r} is {kind}, not a file or a folder; nothing was unpacked")
