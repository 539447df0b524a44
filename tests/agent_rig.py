"""What the agent's tests share: a web server with faults, disk images, a machine of files."""

import contextlib
import functools
import hashlib
import os
import random
import socket
import ssl
import struct
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from billet_agent.image.fetch import Patience
from billet_agent.jobs.context import JobContext
from billet_agent.machine import Machine
from billet_agent.tools import HostTools, Tools
from billet_wire import (
    CpuReport,
    DiskReport,
    FirmwareReport,
    InspectResult,
    Progress,
    VendorReport,
)

MIB = 1 << 20
QUICK = Patience(connect_s=5, stall_s=1, tries=3, pause_s=0.01)


@dataclass
class Page:
    """A resource and how its serving goes wrong."""

    body: bytes = b""
    status: int = 200
    location: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    ranges: bool = True
    announce: int | None = None
    cut_after: list[int] = field(default_factory=list)
    """For each answer in turn: after how many bytes the connection ends; then no more cuts."""
    reset: bool = False
    hang: bool = False
    chunked: bool = False
    refusals: list[int] = field(default_factory=list)
    """For each answer in turn: a status instead of the page; then no more."""
    content_range: str = ""
    """What a part claims to be, whatever it is."""
    stall_after: list[int] = field(default_factory=list)
    """For each answer in turn: after how many bytes nothing comes any more."""
    trickle_s: float = 0.0
    """Seconds between single bytes, all of them."""


class WebServer:
    """Serves pages by path on a loopback port, by TLS with a context, and counts requests."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.pages: dict[str, Page] = {}
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.sent_bytes = 0
        self.gate = threading.Event()
        rig = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                rig.requests.append((self.path, dict(self.headers)))
                rig.answer(self, rig.pages.get(self.path.partition("?")[0], Page(status=404)))

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        if context is not None:
            wire = self._server.socket
            self._server.socket = context.wrap_socket(wire, server_side=True)
        scheme = "http" if context is None else "https"
        self.base = f"{scheme}://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.02,), daemon=True
        )
        self._thread.start()

    def url(self, path: str) -> str:
        return self.base + path

    def close(self) -> None:
        self.gate.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def answer(self, handler: BaseHTTPRequestHandler, page: Page) -> None:
        if page.hang:
            self.gate.wait(20)
        with contextlib.suppress(ConnectionError):
            self._answer(handler, page)

    def _answer(self, handler: BaseHTTPRequestHandler, page: Page) -> None:
        body, start, status = page.body, 0, page.status
        wanted = handler.headers.get("Range")
        if page.refusals:
            body, status = b"", page.refusals.pop(0)
        if wanted and page.ranges and status == 200:
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            start, status = int(first), 206
            body = body[: int(last) + 1] if last else body
        handler.send_response(status)
        for key, value in page.headers.items():
            handler.send_header(key, value)
        if page.location:
            handler.send_header("Location", page.location)
        if status == 206:
            total = page.announce or len(page.body)
            end = total if body is page.body else len(body)
            span = page.content_range or f"bytes {start}-{end - 1}/{total}"
            handler.send_header("Content-Range", span)
        if not page.chunked:
            whole = (page.announce or len(body)) if body is page.body else len(body)
            length = whole if status == page.status or start else 0
            handler.send_header("Content-Length", str(length - start))
        handler.end_headers()
        data = body[start:]
        if page.cut_after:
            data = data[: page.cut_after.pop(0)]
        stalls = bool(page.stall_after)
        if stalls:
            data = data[: page.stall_after.pop(0)]
        step = 1 if page.trickle_s else max(1, len(data))
        for at in range(0, len(data), step):
            self.sent_bytes += len(data[at : at + step])
            handler.wfile.write(data[at : at + step])
            self.gate.wait(page.trickle_s)
        handler.wfile.flush()
        if stalls:
            self.gate.wait(20)
        if page.reset:
            linger = struct.pack("ii", 1, 0)
            handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        handler.close_connection = True


@contextlib.contextmanager
def web_server(context: ssl.SSLContext | None = None) -> Iterator[WebServer]:
    server = WebServer(context)
    try:
        yield server
    finally:
        server.close()


def run(*argv: object) -> str:
    """Run a judge or builder; its failure is the test's."""
    words = [str(word) for word in argv]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
    return done.stdout


def make_gpt_image(
    path: Path, size_mib: int = 40, *, boot_code: bool = True, esp: bool = True
) -> Path:
    """Make a raw whole-disk image: GPT, ESP with loader and boot list, a root partition."""
    path.write_bytes(_gpt_image(size_mib, boot_code, esp))
    return path


@functools.lru_cache(maxsize=6)
def _gpt_image(size_mib: int, boot_code: bool, esp: bool) -> bytes:
    """Return such an image; sgdisk sleeps a second on every call, so each is made once."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "os.raw"
        _build_gpt_image(path, size_mib, boot_code, esp)
        return path.read_bytes()


def _build_gpt_image(path: Path, size_mib: int, boot_code: bool, esp: bool) -> None:
    with path.open("wb") as file:
        file.truncate(size_mib * MIB)
    parts = ["-n", "1:20480:0", "-t", "1:8300", "-c", "1:root"]
    if esp:
        parts += ["-n", "15:2048:18431", "-t", "15:ef00", "-c", "15:esp"]
    run("sgdisk", "--clear", *parts, path)
    if esp:
        _fill_esp(path)
    noise = random.Random(1)
    with path.open("r+b") as file:
        if boot_code:
            file.write(b"\xeb\x63\x90" + noise.randbytes(400))
        for offset in range(10 * MIB, (size_mib - 1) * MIB, 5 * MIB):
            file.seek(offset)
            file.write(noise.randbytes(MIB))


def _fill_esp(path: Path) -> None:
    esp = path.with_suffix(".esp")
    with esp.open("wb") as file:
        file.truncate(8 * MIB)
    run("mformat", "-i", esp, "::")
    loader = path.with_suffix(".efi")
    loader.write_bytes(b"MZ loader")
    csv = path.with_suffix(".csv")
    csv.write_bytes("shimx64.efi,debian,,This is the boot entry for debian\n".encode("utf-16"))
    run("mmd", "-i", esp, "::/EFI", "::/EFI/BOOT", "::/EFI/debian")
    for name in ("BOOT/BOOTX64.EFI", "debian/shimx64.efi", "debian/grubx64.efi"):
        run("mcopy", "-i", esp, loader, f"::/EFI/{name}")
    run("mcopy", "-i", esp, csv, "::/EFI/debian/BOOTX64.CSV")
    with path.open("r+b") as file:
        file.seek(MIB)
        file.write(esp.read_bytes())
    for made in (esp, loader, csv):
        made.unlink()


def to_qcow2(raw: Path, *options: str) -> Path:
    """Convert a raw image to qcow2 beside it."""
    made = raw.with_suffix(".qcow2")
    run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", *options, raw, made)
    return made


def to_vdi(raw: Path) -> Path:
    """Convert to a format that is held whole before it is written."""
    made = raw.with_suffix(".vdi")
    run("qemu-img", "convert", "-f", "raw", "-O", "vdi", raw, made)
    return made


def digest(data: bytes, algorithm: str = "sha256") -> str:
    return hashlib.new(algorithm, data).hexdigest()


def disk_report(path: Path | str, **changes: object) -> DiskReport:
    """Describe a file or block device as a disk."""
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
    fields: dict[str, object] = {
        "name": str(path),
        "size_bytes": size,
        "rotational": False,
        "type": "SSD",
    }
    return DiskReport(**{**fields, **changes})  # type: ignore[arg-type]


def make_disk(path: Path, size_mib: int = 64, *, fill: bool = True) -> Path:
    """Make a disk of old data: every byte of it non-zero, so that what is not written shows."""
    block = b"old-data" * (MIB // 8) if fill else bytes(MIB)
    with path.open("wb") as file:
        for _ in range(size_mib):
            file.write(block)
    return path


def file_machine(
    *disks: DiskReport,
    boot_mode: str = "legacy",
    memory_bytes: int = 8 << 30,
    tools: Tools | None = None,
    patience: Patience = QUICK,
) -> Machine:
    """Return a machine whose disks are files (or loop devices) and whose tools are real."""
    inventory = InspectResult(
        hostname="files",
        cpu=CpuReport("x86_64", "test", 1000.0, (), 1),
        ram_mebibytes=1024,
        disks=disks,
        nics=(),
        system_vendor=VendorReport(),
        firmware=FirmwareReport(),
        boot_mode=boot_mode,
    )
    return Machine(
        tools=tools or HostTools(),
        inventory=lambda: inventory,
        disks=lambda: disks,
        partitions=lambda _: (),
        memory_available=lambda: memory_bytes,
        boot_mode=boot_mode,
        architecture="x86_64",
        patience=patience,
    )


class Recorder:
    """A job context's other end: every progress and log line."""

    def __init__(self) -> None:
        self.progress: list[Progress] = []
        self.lines: list[str] = []

    def context(self) -> JobContext:
        return JobContext(self.progress.append, self.lines.append)

    @property
    def steps(self) -> list[str]:
        return list(dict.fromkeys(entry.step for entry in self.progress))
