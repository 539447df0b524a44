"""The job ``deploy``: an image on the root disk, written so that half of it never boots.

The disk's first MiB (boot code, partition table with the config drive in it) is written last,
in one piece, after everything else is on the medium. Whatever fails after the first write, the
disk's start and end are wiped.
"""

import contextlib
from collections.abc import Callable
from functools import partial

from billet_agent.boot import check_bootable, set_boot_entry
from billet_agent.disk import Disk
from billet_agent.image.convert import Source, read_slice, write_slice
from billet_agent.image.fetch import Fetch, NoRanges, TextSink
from billet_agent.image.store import (
    DiskStore,
    ImageReceiver,
    MemoryStore,
    Store,
    fits_in_memory,
)
from billet_agent.image.stream import QcowStream, RawStream, check_size
from billet_agent.image.unpack import PackedStream
from billet_agent.image.writer import Edges
from billet_agent.jobs.clean import account_for, clean_disks
from billet_agent.jobs.context import JobContext
from billet_agent.machine import Machine
from billet_agent.plan.checksum import (
    SUM_FILE_BYTES,
    Digest,
    find_digest,
    is_url,
    parse_digest,
)
from billet_agent.plan.formats import DETECT_BYTES, Inspected, inspect_image
from billet_agent.plan.layout import (
    HEAD_BYTES,
    Layout,
    Target,
    partitions,
    plan_layout,
    read_label,
)
from billet_agent.plan.qcow2_decoder import Unsupported
from billet_agent.plan.rootdisk import Choice, NoDisk, choose_root_disk
from billet_agent.plan.urls import show_url
from billet_agent.problems import JobFailed, failure, show_bytes
from billet_wire import Deploy, DeployResult, DiskReport, ImageSource

_LABEL_BYTES = 40 * 1024
ReadImage = Callable[[int, int], bytes]
"""Bytes of the image's disk: offset, length."""

_STREAMS = (RawStream, PackedStream, QcowStream)


def deploy(machine: Machine, params: Deploy, context: JobContext) -> DeployResult:
    """Run the whole job. Raises JobFailed (every id but agent-busy), JobCancelled."""
    with context.step("root-device"):
        disks = machine.disks()
        choice = _choose(disks, params)
        context.log(f"root disk {choice.disk.name}: {choice.reason}")
    with context.step("checksum"):
        wanted = resolve_checksum(params.image, machine, context)
    if params.clean:
        with context.step("clean"):
            clean_disks(machine, context, disks, protect=params.protect_data)
    elif params.protect_data:
        with context.step("protect-data"):
            account_for(machine, context, [choice.disk.name], protect=True)
    with Disk(choice.disk.name) as disk:
        return _Deployment(machine, params, context, disk, wanted).run(choice)


def resolve_checksum(image: ImageSource, machine: Machine, context: JobContext) -> Digest:
    """Return the digest that the image must have, fetching the sum file where one is named."""
    if not is_url(image.checksum):
        return parse_digest(image.checksum, image.checksum_type)
    sink = TextSink(SUM_FILE_BYTES)
    try:
        Fetch(image.checksum, sink, context, machine.patience, context.log).run()
    except JobFailed as error:
        if not error.problem.problem.startswith("image-"):
            raise
        raise failure(
            "checksum-file",
            f"the sum file could not be fetched: {error.problem.message}",
            evidence=error.problem.evidence,
            advice="Check that spec.image.checksum is right and that its server answers: "
            f"curl -I {show_url(image.checksum)}",
        ) from error
    source = show_url(image.checksum)
    return find_digest(sink.text, image.url, image.checksum_type, source)


def _choose(disks: tuple[DiskReport, ...], params: Deploy) -> Choice:
    choice = choose_root_disk(disks, params.hints)
    if isinstance(choice, NoDisk):
        raise choice.failure()
    return choice


class _Deployment:
    """One image on one open disk."""

    def __init__(
        self, machine: Machine, params: Deploy, context: JobContext, disk: Disk, wanted: Digest
    ) -> None:
        self._machine = machine
        self._params = params
        self._context = context
        self._disk = disk
        self._wanted = wanted
        self._url = show_url(params.image.url)
        self._touched = False
        self._streams = True
        self._receiver = ImageReceiver(
            self._url, params.image.format, wanted.algorithm, self._open_store
        )

    def run(self, choice: Choice) -> DeployResult:
        """Fetch, prove, write, make bootable."""
        try:
            image_bytes = self._fetch()
            edges, layout = self._write_body()
            self._receiver.close()
            self._finish(edges, layout)
            entry = self._boot_entry(layout)
        except BaseException:
            self._wipe()
            raise
        finally:
            with contextlib.suppress(JobFailed):
                self._receiver.close()
        return DeployResult(
            root_disk=choice.disk.name,
            root_disk_reason=choice.reason,
            image_bytes=image_bytes,
            virtual_bytes=edges.size_bytes,
            checksum=str(self._wanted),
            boot_mode=self._machine.boot_mode,
            boot_entry=entry,
            seconds=dict(self._context.seconds),
        )

    def _wipe(self) -> None:
        """Leave no bootable disk behind; a disk that cannot even be wiped says so in its error."""
        if self._touched:
            with contextlib.suppress(JobFailed):
                self._disk.wipe_edges()
                self._disk.reread_table()

    def _open_store(self, inspected: Inspected, total: int | None) -> Store:
        size = inspected.virtual_bytes
        if size is None:
            self._stream_to_disk(total or 0)
            return RawStream(self._disk, total, self._url, self._context.check)
        if inspected.header is None or not self._streams:
            return self._hold(size, total)
        self._stream_to_disk(size)
        length = size - HEAD_BYTES
        is_clear = length > 0 and self._disk.clear(HEAD_BYTES, length, self._context.check)
        return QcowStream(self._disk, inspected.header, total, self._url, is_clear=is_clear)

    def _stream_to_disk(self, size_bytes: int) -> None:
        """Prepare the disk for an image that is written while it arrives."""
        check_size(size_bytes, self._disk, self._url)
        self._context.become("write", f"{self._url} to {self._disk.path}, while it arrives")
        self._clear_disk()

    def _hold(self, virtual_bytes: int, total: int | None) -> Store:
        """Hold the file in memory, or where that is too small and there is room, on the disk."""
        check_size(virtual_bytes, self._disk, self._url)
        available = self._machine.memory_available
        if total is None or fits_in_memory(total, available()):
            return MemoryStore(total, available, self._url)
        if not DiskStore.room(self._disk, virtual_bytes, total):
            return MemoryStore(total, available, self._url)  # raises, with both figures
        self._context.log(f"{self._url} is bigger than free memory: held at the disk's end")
        self._clear_disk()
        return DiskStore(self._disk, virtual_bytes, total)

    def _clear_disk(self) -> None:
        """Make the disk unbootable before the first byte of an image is written to it.

        First discard, then zero: what a discarded sector reads as is anybody's guess.
        """
        self._touched = True
        if self._disk.discard():
            self._context.log(f"discarded all of {self._disk.path}")
        self._disk.wipe_edges()

    def _fetch(self) -> int:
        try:
            return self._fetch_once()
        except (Unsupported, NoRanges) as error:
            words = f"{self._url} cannot be decoded while it arrives, qemu-img converts it: {error}"
            self._context.log(words)
            self._receiver.close()
            self._streams = False
            return self._fetch_once()

    def _fetch_once(self) -> int:
        image = self._params.image
        fetch = Fetch(
            image.url,
            self._receiver,
            self._context,
            self._machine.patience,
            self._context.log,
            mirrors=image.mirrors,
            rate_bytes_s=image.rate_bytes_s,
        )
        with self._context.step("fetch", self._url):
            count = fetch.run(lambda: self._mismatch(fetch))
            self._context.log(f"{fetch.used}: {count} bytes, {self._wanted.algorithm} is right")
            store = self._receiver.store
            if isinstance(store, _STREAMS):
                again_bytes = store.complete(fetch.again)
                if again_bytes:
                    self._context.log(f"{show_bytes(again_bytes)} of it were fetched twice")
        return count

    def _mismatch(self, fetch: Fetch) -> JobFailed | None:
        actual = self._receiver.finish()
        if actual == self._wanted.hex:
            return None
        return failure(
            "image-checksum",
            f"{fetch.used} has {self._wanted.algorithm} {actual}, wanted is {self._wanted.hex}",
            evidence=f"checksum given: {show_url(self._params.image.checksum)}",
        )

    def _write_body(self) -> tuple[Edges, Layout]:
        store = self._receiver.store
        if isinstance(store, _STREAMS):
            edges = store.edges
            with self._context.step("flush", f"waiting for {self._disk.path}"):
                self._disk.flush()
            return edges, self._plan(edges, partial(self._written, edges))
        if not isinstance(store, MemoryStore | DiskStore):
            raise TypeError("an image that was fetched has a store")
        with self._context.step("image-header"):
            source = self._inspect(store)
            edges = self._edges(source)
            # What cannot boot is refused before the disk is written to.
            layout = self._plan(edges, partial(read_slice, self._machine.tools, source))
        with self._context.step("write", f"to {self._disk.path}"):
            self._write_middle(source, edges)
        return edges, layout

    def _inspect(self, store: MemoryStore | DiskStore) -> Source:
        """Look again, now that all of the file is there and proved."""
        start = store.start(DETECT_BYTES)
        found = inspect_image(start, self._params.image.format, self._url, store.size_bytes)
        size = found.virtual_bytes
        if size is None:
            raise TypeError("a raw image is never held in memory")
        check_size(size, self._disk, self._url)
        if isinstance(store, DiskStore):
            self._disk.flush()
            place = (store.offset, store.size_bytes)
            return Source(store.path, found.format, size, place, self._disk.is_block)
        return Source(store.path, found.format, size)

    def _edges(self, source: Source) -> Edges:
        edges = Edges(source.virtual_bytes)
        for offset, length in ((0, len(edges.head)), (edges.tail_offset, len(edges.tail))):
            data = read_slice(self._machine.tools, source, offset, length)
            edges.take(offset, memoryview(data))
        return edges

    def _labels(self, edges: Edges, read: ReadImage) -> dict[int, str]:
        """Return file system labels of the image's partitions, where a config drive wants them."""
        if not self._params.config_drive:
            return {}
        found = {}
        for number, (offset, size) in partitions(
            bytes(edges.head), self._disk.sector_bytes
        ).items():
            length = min(size, _LABEL_BYTES, edges.size_bytes - offset)
            if length > 0:
                found[number] = read_label(read(offset, length))
        return found

    def _written(self, edges: Edges, offset: int, length: int) -> bytes:
        """Return bytes of the image's disk, wherever they are now."""
        end = offset + length
        middle = max(offset, len(edges.head)), min(end, edges.tail_offset)
        parts = [bytes(edges.head[offset:end])]
        if middle[0] < middle[1]:
            parts.append(self._disk.read(middle[0], middle[1] - middle[0]))
        if end > edges.tail_offset:
            start = max(0, offset - edges.tail_offset)
            parts.append(bytes(edges.tail[start : end - edges.tail_offset]))
        return b"".join(parts)

    def _plan(self, edges: Edges, read: ReadImage) -> Layout:
        layout = plan_layout(
            bytes(edges.head),
            Target(self._disk.size_bytes, self._disk.sector_bytes),
            config_drive_bytes=len(self._params.config_drive or b""),
            new_guid=self._machine.new_guid(),
            labels=self._labels(edges, read),
        )
        check_bootable(layout, self._machine.boot_mode)
        return layout

    def _write_middle(self, source: Source, edges: Edges) -> None:
        context, size = self._context, edges.tail_offset - HEAD_BYTES
        if source.slice is None:
            self._clear_disk()
        context.expect(max(0, size))
        write_slice(
            self._machine.tools,
            source,
            self._disk,
            HEAD_BYTES,
            max(0, size),
            advance=context.advance,
            cancelled=lambda: context.cancelled,
        )
        self._disk.flush()

    def _finish(self, edges: Edges, layout: Layout) -> None:
        """Write what is left, the head last and only when all else is on the medium."""
        disk, drive = self._disk, self._params.config_drive
        with self._context.step("config-drive" if drive else "partition-table"):
            if edges.tail:
                disk.write(edges.tail_offset, edges.tail)
            if layout.backup is not None:
                disk.write(*layout.backup)
            if drive and layout.config_drive is not None:
                disk.write(layout.config_drive.offset_bytes, drive)
            disk.flush()
            if drive and layout.config_drive is not None:
                self._verify("config-drive", layout.config_drive.offset_bytes, drive)
        self._context.check()
        with self._context.step("head"):
            disk.write(0, layout.head)
            disk.flush()
            self._verify("disk-write", 0, layout.head)
            disk.reread_table()
            self._machine.settle()

    def _verify(self, problem: str, offset: int, data: bytes) -> None:
        if self._disk.read(offset, len(data)) != data:
            raise failure(
                problem,
                f"{len(data)} bytes written to {self._disk.path} at byte {offset} read back "
                "differently",
            )

    def _boot_entry(self, layout: Layout) -> str | None:
        if self._machine.boot_mode != "UEFI" or layout.esp is None:
            return None
        with self._context.step("boot-entry"):
            entry, words = set_boot_entry(self._machine, self._disk, layout.esp)
            self._context.log(words)
        return entry
