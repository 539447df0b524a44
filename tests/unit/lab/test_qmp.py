import asyncio
import contextlib
import json

import pytest

from billet_lab.qmp import QmpClient, QmpError

GREETING = {"QMP": {"version": {}, "capabilities": []}}


@contextlib.asynccontextmanager
async def qemu(tmp_path, answer, greeting=GREETING):
    """A QEMU whose answers come from ``answer(command) -> messages``; None hangs up."""

    async def speak(reader, writer):
        writer.write(json.dumps(greeting).encode() + b"\r\n")
        while line := await reader.readline():
            command = json.loads(line)
            messages = answer(command)
            if messages is None:
                break
            for message in messages:
                writer.write(json.dumps(message).encode() + b"\r\n")
        writer.close()

    path = tmp_path / "qmp"
    server = await asyncio.start_unix_server(speak, path)
    try:
        yield path
    finally:
        server.close()


def obedient(command):
    return [{"return": {"did": command["execute"]}, "id": command["id"]}]


async def test_commands_are_answered_by_id(tmp_path):
    def reversed_pairs(command, held=[]):  # noqa: B006
        if command["execute"] == "qmp_capabilities":
            return obedient(command)
        held.append(command)
        return [m for c in reversed(held) for m in obedient(c)] if len(held) == 2 else []

    async with qemu(tmp_path, reversed_pairs) as path:
        client = await QmpClient.connect(path)
        answers = await asyncio.gather(client.execute("first"), client.execute("second"))
        assert [answer["did"] for answer in answers] == ["first", "second"]
        await client.close()


async def test_refusals_carry_qemu_s_words(tmp_path):
    def refuse(command):
        if command["execute"] == "bad":
            return [{"error": {"class": "GenericError", "desc": "no such"}, "id": command["id"]}]
        return obedient(command)

    async with qemu(tmp_path, refuse) as path:
        client = await QmpClient.connect(path)
        with pytest.raises(QmpError, match="GenericError: no such"):
            await client.execute("bad")
        assert await client.execute("good") == {"did": "good"}
        await client.close()


async def test_events_come_in_order_and_end_with_none(tmp_path):
    def eventful(command):
        if command["execute"] == "quit":
            return None
        events = [{"event": name, "data": {}} for name in ("RESET", "SHUTDOWN")]
        return [*events, *obedient(command)]

    async with qemu(tmp_path, eventful) as path:
        client = await QmpClient.connect(path)
        assert [(await client.event())["event"] for _ in range(2)] == ["RESET", "SHUTDOWN"]
        with pytest.raises(QmpError, match="gone away"):
            await client.execute("quit")
        assert await client.event() is None
        assert await client.event() is None
        with pytest.raises(QmpError, match="gone away"):
            await client.execute("cont")
        await client.close()


async def test_silence_has_a_deadline(tmp_path):
    async with qemu(
        tmp_path, lambda c: obedient(c) if c["execute"] == "qmp_capabilities" else []
    ) as path:
        client = await QmpClient.connect(path)
        with pytest.raises(QmpError, match="no answer from QEMU within"):
            await client.execute("stop", deadline_s=0.01)
        await client.close()


async def test_what_is_no_qemu_is_refused(tmp_path):
    async with qemu(tmp_path, obedient, greeting={"hello": 1}) as path:
        with pytest.raises(QmpError, match="no QMP greeting"):
            await QmpClient.connect(path)
    with pytest.raises(QmpError, match="cannot reach"):
        await QmpClient.connect(tmp_path / "nowhere")
