"""QMP, QEMU's control protocol: JSON objects over a stream (QEMU docs, interop/qmp-spec).

After the greeting and ``qmp_capabilities``, answers carry the id of their command and events
come in between. One `QmpClient` per QEMU process; its deadline is in seconds.
"""

import asyncio
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

DEADLINE_S = 20.0
_LIMIT_BYTES = 1 << 20


class QmpError(Exception):
    """QEMU refused a command, answered no JSON, went away, or kept silent."""


class QmpClient:
    """A connected client. ``event`` waits for events in the order in which they came."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._ids = itertools.count(1)
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._events: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self._closed = False
        self._pump: asyncio.Task[None] | None = None

    @classmethod
    async def connect(cls, path: Path, *, deadline_s: float = DEADLINE_S) -> "QmpClient":
        """Connect, read the greeting and leave negotiation mode."""
        try:
            async with asyncio.timeout(deadline_s):
                reader, writer = await asyncio.open_unix_connection(path, limit=_LIMIT_BYTES)
                client = cls(reader, writer)
                try:
                    await client._greet()
                except BaseException:
                    await client.close()
                    raise
                return client
        except TimeoutError:
            raise QmpError(f"no QMP greeting on {path} within {deadline_s:g} s") from None
        except OSError as error:
            raise QmpError(f"cannot reach QMP on {path}: {error}") from error

    async def _greet(self) -> None:
        line = await self._reader.readline()
        greeting = _decode(line) if line else {}
        if "QMP" not in greeting:
            raise QmpError(f"this is no QMP greeting: {line[:200]!r}")
        self._pump = asyncio.create_task(self._read(), name="qmp-reader")
        await self.execute("qmp_capabilities")

    async def execute(
        self,
        command: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        deadline_s: float = DEADLINE_S,
    ) -> Any:
        """Run one command and return its ``return`` value; `QmpError` when QEMU refuses it."""
        if self._closed:
            raise QmpError(f"{command}: QEMU has gone away")
        number = next(self._ids)
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._answers[number] = answer
        message: dict[str, Any] = {"execute": command, "id": number}
        if arguments:
            message["arguments"] = dict(arguments)
        try:
            async with asyncio.timeout(deadline_s):
                self._writer.write(msgspec.json.encode(message) + b"\n")
                await self._writer.drain()
                return await answer
        except TimeoutError:
            raise QmpError(f"{command}: no answer from QEMU within {deadline_s:g} s") from None
        except OSError as error:
            raise QmpError(f"{command}: QEMU has gone away ({error})") from error
        finally:
            self._answers.pop(number, None)

    async def event(self) -> dict[str, Any] | None:
        """The next event (keys ``event``, ``data``, ``timestamp``); None once QEMU is gone."""
        if self._closed and self._events.empty():
            return None
        return await self._events.get()

    async def close(self) -> None:
        """Hang up; pending commands fail."""
        if self._pump is not None:
            self._pump.cancel()
            await asyncio.gather(self._pump, return_exceptions=True)
        self._end()
        self._writer.close()

    async def _read(self) -> None:
        try:
            while line := await self._reader.readline():
                self._take(_decode(line))
        except (OSError, ValueError, QmpError):
            pass  # a torn stream is an end like any other; `_end` tells all who wait
        finally:
            self._end()

    def _take(self, message: dict[str, Any]) -> None:
        if "event" in message:
            self._events.put_nowait(message)
            return
        answer = self._answers.get(message.get("id", 0))
        if answer is None or answer.done():
            return
        if "error" in message:
            error = message["error"]
            answer.set_exception(QmpError(f"{error.get('class')}: {error.get('desc')}"))
        else:
            answer.set_result(message.get("return"))

    def _end(self) -> None:
        if self._closed:
            return
        self._closed = True
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(QmpError("QEMU has gone away"))
        self._events.put_nowait(None)


def _decode(line: bytes) -> dict[str, Any]:
    try:
        message = msgspec.json.decode(line)
    except msgspec.DecodeError as error:
        raise QmpError(f"not JSON from QEMU: {line[:200]!r}") from error
    if not isinstance(message, dict):
        raise QmpError(f"not an object from QEMU: {line[:200]!r}")
    return message
