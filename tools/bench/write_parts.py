"""One measured way of `make bench-write`, in a process of its own; prints seconds and memory.

python write_parts.py ours|peer|download|decode|write URL FILE TARGET MD5
"""

import hashlib
import http.client
import json
import mmap
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from billet_agent.image.inflate import inflater
from billet_agent.image.writer import Edges, Writer
from billet_agent.jobs.context import JobContext
from billet_agent.jobs.deploy import deploy
from billet_agent.machine import Machine
from billet_agent.plan.qcow2 import HEADER_BYTES, Header, inspect_header
from billet_agent.plan.qcow2_decoder import BLOCK_BYTES, Decoder
from billet_agent.tools import HostTools
from billet_wire import (
    CpuReport,
    Deploy,
    DiskReport,
    FirmwareReport,
    ImageSource,
    InspectResult,
    RootDeviceHints,
    VendorReport,
)

_CHUNK = 1 << 20


class Case(NamedTuple):
    """What is written, from where, to where."""

    url: str
    file: Path
    target: Path
    md5: str


def ours(case: Case) -> None:
    """The agent's deploy job, with a disk that is a file."""
    disk = DiskReport(str(case.target), case.target.stat().st_size, False, "SSD")
    found = InspectResult(
        hostname="bench",
        cpu=CpuReport("x86_64", "", 0.0, (), 1),
        ram_mebibytes=0,
        disks=(disk,),
        nics=(),
        system_vendor=VendorReport(),
        firmware=FirmwareReport(),
        boot_mode="legacy",
    )
    machine = Machine(
        tools=HostTools(),
        inventory=lambda: found,
        disks=lambda: (disk,),
        partitions=lambda _: (),
        memory_available=lambda: 64 << 30,
        boot_mode="legacy",
        architecture="x86_64",
    )
    hints = RootDeviceHints(device_name=str(case.target))
    params = Deploy(ImageSource(case.url, case.md5, "md5"), hints, clean=False)
    deploy(machine, params, JobContext())


def peer(case: Case) -> None:
    """The whole file to memory with its md5, then qemu-img."""
    with tempfile.NamedTemporaryFile(dir="/dev/shm") as held:
        digest = hashlib.md5()

        def take(data: memoryview) -> None:
            held.write(data)
            digest.update(data)

        _read(case.url, take)
        held.flush()
        assert digest.hexdigest() == case.md5, "the image changed"
        form = "raw" if case.file.suffix == ".raw" else "qcow2"
        argv = ["qemu-img", "convert", "-t", "directsync", "-S", "0", "-W", "-f", form]
        subprocess.run([*argv, "-O", "raw", "-n", held.name, case.target], check=True)


def download(case: Case) -> None:
    """The bytes off the wire, and away."""
    _read(case.url, len)


def decode(case: Case) -> None:
    """Our decoder on all cores, its output thrown away."""
    with case.file.open("rb") as source:
        size = case.file.stat().st_size
        header = inspect_header(source.read(HEADER_BYTES), size)
        assert isinstance(header, Header)
        source.seek(0)
        decoder = Decoder(header, size)
        edges = Edges(header.virtual_bytes)
        unpack, cluster = inflater(header.compression), header.cluster_bytes
        writer = Writer(_Nowhere(), edges, unpack, cluster, is_clear=True)  # type: ignore[arg-type]
        while block := source.read(BLOCK_BYTES):
            for piece in decoder.feed(block):
                writer.put(piece)
        for piece in decoder.finish():
            writer.put(piece)
        writer.drain()
        writer.close()


def write(case: Case) -> None:
    """The image's data, already decoded, to the target and on its medium."""
    raw = case.file.with_name("write.raw")
    flags = os.O_WRONLY | os.O_DIRECT
    with raw.open("rb") as source:
        into = os.open(case.target, flags)
        buffer = memoryview(_aligned(4 << 20))
        offset = 0
        while True:
            try:
                offset = os.lseek(source.fileno(), offset, os.SEEK_DATA)
            except OSError:
                break
            end = os.lseek(source.fileno(), offset, os.SEEK_HOLE)
            while offset < end:
                count = os.preadv(
                    source.fileno(), [buffer[: min(len(buffer), end - offset)]], offset
                )
                os.pwrite(into, buffer[: -(-count // 4096) * 4096], offset)
                offset += count
        os.fsync(into)
        os.close(into)


class _Nowhere:
    """A disk that forgets."""

    def write_direct(self, *_: object) -> bool:
        return True

    def write(self, *_: object) -> None:
        pass

    start_writeback = finish_writeback = zero = write


def _aligned(size: int) -> memoryview:
    return memoryview(mmap.mmap(-1, size))


def _read(url: str, take: Callable[[memoryview], object]) -> None:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port)
    connection.request("GET", parts.path)
    response = connection.getresponse()
    buffer = memoryview(bytearray(_CHUNK))
    while count := response.readinto(buffer):
        take(buffer[:count])
    connection.close()


def _memory_mib(what: str) -> float:
    """Return a figure of this process; getrusage's peak would be its parent's at the fork."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(what)) / 1024


def _peak_mib() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    return max(_memory_mib("VmHWM"), children)


def main() -> None:
    """Run one way and print a line of JSON."""
    way, url, file, target, md5 = sys.argv[1:]
    idle = _memory_mib("VmRSS")
    start = time.perf_counter()
    {"ours": ours, "peer": peer, "download": download, "decode": decode, "write": write}[way](
        Case(url, Path(file), Path(target), md5)
    )
    seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds, "peak_mib": _peak_mib(), "idle_mib": idle}))


if __name__ == "__main__":
    main()
