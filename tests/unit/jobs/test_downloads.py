"""Downloads and archives: what arrives is what the digest says, and nothing lands elsewhere."""

import hashlib
import io
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from nvdla_quant.errors import ConfigError, DownloadError
from nvdla_quant.jobs import downloads, transfer
from nvdla_quant.jobs.downloads import UNKNOWN, Source, obtain, resolve, take_folder, take_member

CONTENT = bytes(range(256)) * 4096
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@dataclass
class Server:
    """What the test server does: how often it fails or breaks off, whether it can go on, and what it was asked."""

    url: str = ""
    content: bytes = CONTENT
    failures: int = 0
    cut: list[int] = field(default_factory=list)
    ranges: bool = True
    status: int = 503
    requests: list[str | None] = field(default_factory=list)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(transfer, "FIRST_WAIT", 0.0)
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range")
            state.requests.append(wanted)
            if state.failures:
                state.failures -= 1
                self.send_error(state.status)
                return
            start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and state.ranges else 0
            if start >= len(state.content) > 0:
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(state.content)}")
                self.end_headers()
                return
            body = state.content[start:]
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(body)))
            if state.ranges:
                self.send_header("Accept-Ranges", "bytes")
            self.end_headers()
            self.wfile.write(body[: state.cut.pop(0)] if state.cut else body)

        def log_message(self, *_: Any) -> None:
            pass

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{listener.server_port}/some/data.bin?version=2"
    threading.Thread(target=listener.serve_forever, daemon=True).start()
    yield state
    listener.shutdown()
    listener.server_close()


def files_below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_file_arrives(server: Server, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    target = tmp_path / "a" / "data.bin"
    obtain(Source(DIGEST, server.url), target, tmp_path / "placed", lambda *counts: seen.append(counts))
    assert target.read_bytes() == CONTENT
    assert files_below(tmp_path) == ["a/data.bin"]
    assert seen[-1] == (len(CONTENT), len(CONTENT))


def test_errors_of_the_server_are_tried_again(server: Server, tmp_path: Path) -> None:
    server.failures = transfer.ATTEMPTS - 1
    obtain(Source(DIGEST, server.url), tmp_path / "data.bin", tmp_path / "placed")
    assert (tmp_path / "data.bin").read_bytes() == CONTENT


def test_a_file_that_is_not_there_is_not_asked_for_again(server: Server, tmp_path: Path) -> None:
    server.failures, server.status = 9, 404
    with pytest.raises(DownloadError, match=r"404.*put the file into .*placed/data\.bin"):
        obtain(Source(DIGEST, server.url), tmp_path / "data.bin", tmp_path / "placed")
    assert len(server.requests) == 1
    assert files_below(tmp_path) == []


def test_a_broken_transfer_goes_on(server: Server, tmp_path: Path) -> None:
    server.cut = [100_000, 200_000]
    obtain(Source(DIGEST, server.url), tmp_path / "data.bin", tmp_path / "placed")
    assert (tmp_path / "data.bin").read_bytes() == CONTENT
    assert server.requests[0] is None
    assert len(server.requests) == 3
    assert all(request is not None for request in server.requests[1:])


def test_the_next_run_goes_on_too(server: Server, tmp_path: Path) -> None:
    server.cut = [100_000] + [0] * transfer.ATTEMPTS
    with pytest.raises(DownloadError, match=r"65536 bytes are kept in .*data\.bin\.part"):
        obtain(Source(DIGEST, server.url), tmp_path / "data.bin", tmp_path / "placed")
    assert files_below(tmp_path) == ["data.bin.part"]
    server.cut, server.requests = [], []
    obtain(Source(DIGEST, server.url), tmp_path / "data.bin", tmp_path / "placed")
    assert server.requests == ["bytes=65536-"]
    assert files_below(tmp_path) == ["data.bin"]


def test_a_whole_part_is_not_fetched_again(server: Server, tmp_path: Path) -> None:
    (tmp_path / "data.bin.part").write_bytes(CONTENT)
    obtain(Source(DIGEST, server.url), tmp_path / "data.bin", tmp_path / "placed")
    assert files_below(tmp_path) == ["data.bin"]


def test_a_part_longer_than_the_file_is_thrown_away(server: Server, tmp_path: Path) -> None:
    (tmp_path / "data.bin.part").write_bytes(CONTENT + b"more")
    obtain(Source(DIGEST, server.url), tmp_path / "data.bin", tmp_path / "placed")
    assert (tmp_path / "data.bin").read_bytes() == CONTENT


def test_a_server_that_cannot_go_on_leaves_no_part(server: Server, tmp_path: Path) -> None:
    server.ranges, server.cut = False, [1000] * transfer.ATTEMPTS
    with pytest.raises(DownloadError, match="cannot be downloaded"):
        obtain(Source(DIGEST, server.url), tmp_path / "data.bin", tmp_path / "placed")
    assert files_below(tmp_path) == []
    server.cut = [1000]
    obtain(Source(DIGEST, server.url), tmp_path / "data.bin", tmp_path / "placed")
    assert (tmp_path / "data.bin").read_bytes() == CONTENT


def test_a_wrong_digest_is_an_error_with_both(server: Server, tmp_path: Path) -> None:
    wrong = "1" * 64
    with pytest.raises(DownloadError, match=f"SHA-256 is {DIGEST}, expected {wrong}"):
        obtain(Source(wrong, server.url), tmp_path / "data.bin", tmp_path / "placed")
    assert files_below(tmp_path) == []


def test_an_unknown_digest_is_never_skipped(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=f"no digest is recorded.*{DIGEST}"):
        obtain(Source(UNKNOWN, server.url), tmp_path / "data.bin", tmp_path / "placed")
    assert files_below(tmp_path) == []


def test_a_placed_file_needs_no_network(tmp_path: Path) -> None:
    placed = tmp_path / "placed"
    placed.mkdir()
    (placed / "data.bin").write_bytes(CONTENT)
    obtain(Source(DIGEST, "http://127.0.0.1:1/data.bin"), tmp_path / "data.bin", placed)
    assert (tmp_path / "data.bin").read_bytes() == CONTENT
    (placed / "data.bin").write_bytes(CONTENT[:-1])
    with pytest.raises(DownloadError, match=f"expected {DIGEST}"):
        obtain(Source(DIGEST, "http://127.0.0.1:1/data.bin"), tmp_path / "again", placed)


def test_offline_the_message_says_where_to_put_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(transfer, "FIRST_WAIT", 0.0)
    with pytest.raises(DownloadError, match=r"put the file into .*placed/data\.bin"):
        obtain(Source(DIGEST, "http://127.0.0.1:1/data.bin"), tmp_path / "data.bin", tmp_path / "placed")
    assert files_below(tmp_path) == []


@pytest.mark.parametrize(
    ("record", "path"),
    [
        ({"url": "https://x.org/a/b%20c.zip"}, "file/b c.zip"),
        ({"url": "https://x.org/a.zip", "member": "./net/deploy.prototxt"}, "member/net/deploy.prototxt"),
        ({"archive": "here/a.tar", "member": "val/"}, "folder/val"),
        ({"archive": "here/a.tar", "member": "./"}, "folder/all"),
    ],
)
def test_paths(record: dict[str, str], path: str) -> None:
    assert resolve({"sha256": DIGEST, **record})[0] == f"downloads/{DIGEST}/{path}"


@pytest.mark.parametrize(
    "record",
    [
        {"url": "https://x.org/"},
        {"url": "https://x.org/a/.."},
        {"url": "https://x.org/a.zip", "member": "../b"},
        {"url": "https://x.org/a.zip", "member": "/etc/passwd"},
    ],
)
def test_paths_that_lead_elsewhere_are_refused(record: dict[str, str]) -> None:
    with pytest.raises(ConfigError):
        resolve({"sha256": DIGEST, **record})


def zip_of(path: Path, entries: dict[str, bytes], link: str | None = None) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
        if link is not None:
            entry = zipfile.ZipInfo(link)
            entry.create_system, entry.external_attr = 3, 0o120777 << 16
            archive.writestr(entry, "../../outside")
    return path


def tar_of(path: Path, entries: dict[str, bytes], link: str | None = None) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in entries.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
        if link is not None:
            entry = tarfile.TarInfo(link)
            entry.type, entry.linkname = tarfile.SYMTYPE, "../../outside"
            archive.addfile(entry)
    return path


Maker = Callable[..., Path]
ENTRIES = {"net/deploy.prototxt": b"name", "net/sub/weights": b"\0" * 100_000, "readme": b"hello"}


def archive_source(archive: Path, member: str) -> Source:
    return Source(downloads.digest_of(archive), archive=str(archive), member=member)


@pytest.mark.parametrize("make", [zip_of, tar_of])
def test_members_and_folders(make: Maker, tmp_path: Path) -> None:
    archive = make(tmp_path / "archive", ENTRIES)
    take_member(archive_source(archive, "net/deploy.prototxt"), archive, tmp_path / "out" / "p")
    assert (tmp_path / "out" / "p").read_bytes() == b"name"
    take_folder(archive_source(archive, "net/"), archive, tmp_path / "net")
    assert files_below(tmp_path / "net") == ["deploy.prototxt", "sub/weights"]
    take_folder(archive_source(archive, "./"), archive, tmp_path / "all")
    assert files_below(tmp_path / "all") == sorted(ENTRIES)


@pytest.mark.parametrize("make", [zip_of, tar_of])
@pytest.mark.parametrize("name", ["../evil", "net/../../evil", "/evil", "..\\evil", "C:/evil"])
def test_entries_that_lead_out_are_refused(make: Maker, name: str, tmp_path: Path) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    archive = make(folder / "archive", {"good": b"1", name: b"2"})
    with pytest.raises(DownloadError, match="leads out of the archive"):
        take_folder(archive_source(archive, "./"), archive, folder / "all")
    assert files_below(tmp_path) == ["work/archive"]


@pytest.mark.parametrize("make", [zip_of, tar_of])
def test_links_are_refused(make: Maker, tmp_path: Path) -> None:
    archive = make(tmp_path / "archive", {"good": b"1"}, link="bad")
    for take, member in ((take_folder, "./"), (take_member, "bad")):
        with pytest.raises(DownloadError, match="entry 'bad' is a link"):
            take(archive_source(archive, member), archive, tmp_path / "out")
    assert files_below(tmp_path) == ["archive"]


@pytest.mark.parametrize("make", [zip_of, tar_of])
def test_damaged_archives_leave_nothing(make: Maker, tmp_path: Path) -> None:
    """Cut short, with the digest of what is left: the last bytes of a tar are padding, so they may be missing."""
    whole = make(tmp_path / "whole", {"a": bytes(range(256)) * 1000, "b": b"2" * 100_000}).read_bytes()
    (tmp_path / "whole").unlink()
    archive = tmp_path / "archive"
    for size in (0, 10, len(whole) // 2):
        archive.write_bytes(whole[:size])
        with pytest.raises(DownloadError):
            take_folder(archive_source(archive, "./"), archive, tmp_path / "out")
        assert files_below(tmp_path) == ["archive"]


def test_an_archive_of_another_digest_is_not_opened(tmp_path: Path) -> None:
    archive = zip_of(tmp_path / "archive", {"a": b"1"})
    with pytest.raises(DownloadError, match="it is not the archive that the configuration means"):
        take_member(Source("1" * 64, archive=str(archive), member="a"), archive, tmp_path / "out")


def test_a_missing_member_is_named_with_what_there_is(tmp_path: Path) -> None:
    archive = zip_of(tmp_path / "archive", {"a": b"1", "b": b"2"})
    with pytest.raises(DownloadError, match="holds no file 'c'; it holds a, b"):
        take_member(archive_source(archive, "c"), archive, tmp_path / "out")
    with pytest.raises(DownloadError, match="holds no file below 'c/'"):
        take_folder(archive_source(archive, "c/"), archive, tmp_path / "out")


def test_one_name_twice_is_refused(tmp_path: Path) -> None:
    archive = tar_of(tmp_path / "archive", {"a": b"1", "./a": b"2"})
    with pytest.raises(DownloadError, match="twice"):
        take_folder(archive_source(archive, "./"), archive, tmp_path / "out")
    assert files_below(tmp_path) == ["archive"]
