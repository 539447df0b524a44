"""A machine's serial console as a file: bounded, followed, waited for."""

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

LIMIT_BYTES = 16 << 20
_POLL_S = 0.1
_TERMINAL = re.compile(rb"\x1b\[[0-9;?=]*[A-Za-z]|\x1b[()][A-Z0-9]|\x1b[=>78cM]|[\x00\x07\r]")


class ConsoleTimeoutError(Exception):
    """What was waited for did not come; the message ends with the console's last lines."""


def plain(data: bytes) -> str:
    """Console bytes as text without terminal control sequences."""
    return _TERMINAL.sub(b"", data).decode(errors="replace")


def tail(path: Path, *, lines: int = 20) -> str:
    """The last lines, plain; empty when there is no file yet."""
    try:
        with path.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - 64 * 1024))
            data = file.read()
    except FileNotFoundError:
        return ""
    return "\n".join([line for line in plain(data).splitlines() if line.strip()][-lines:])


def bound(path: Path, *, limit_bytes: int = LIMIT_BYTES) -> bool:
    """When the file is over its limit keep it as ``<name>.1`` and start anew; whether it was.

    In place: QEMU appends (O_APPEND), so what it writes next lands at the new end.
    """
    try:
        if path.stat().st_size <= limit_bytes:
            return False
        path.with_name(path.name + ".1").write_bytes(path.read_bytes())
        with path.open("r+b") as file:
            file.truncate(0)
    except FileNotFoundError:
        return False
    return True


def size(path: Path) -> int:
    """Bytes written so far: an offset from which `wait_for` can look."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


async def wait_for(
    path: Path, pattern: str, *, deadline_s: float, offset: int = 0
) -> re.Match[str]:
    """Wait until the console shows ``pattern`` (a regular expression) after ``offset``."""
    wanted = re.compile(pattern)
    seen = b""
    try:
        async with asyncio.timeout(deadline_s):
            while True:
                now = size(path)
                if now < offset + len(seen):
                    offset, seen = 0, b""
                if now > offset + len(seen):
                    with path.open("rb") as file:
                        file.seek(offset + len(seen))
                        seen += file.read(now - offset - len(seen))
                    if match := wanted.search(plain(seen)):
                        return match
                await asyncio.sleep(_POLL_S)
    except TimeoutError:
        raise ConsoleTimeoutError(
            f"{path} did not show {pattern!r} within {deadline_s:g} s; its last lines:\n"
            f"{tail(path)}"
        ) from None


async def follow(path: Path, *, from_end: bool = False) -> AsyncIterator[bytes]:
    """What is on the console and what comes, as raw bytes, for ever."""
    offset = size(path) if from_end else 0
    while True:
        now = size(path)
        if now < offset:
            offset = 0
        if now > offset:
            with path.open("rb") as file:
                file.seek(offset)
                data = file.read(1 << 16)
            offset += len(data)
            yield data
        else:
            await asyncio.sleep(_POLL_S)
