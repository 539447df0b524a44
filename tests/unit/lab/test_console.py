import asyncio

import pytest

from billet_lab import console


def test_plain_text_has_no_terminal_sequences():
    data = b"\x1b[2J\x1b[01;01H\x1b[=3hBdsDxe: \x1b[0mloading\r\n"
    assert console.plain(data) == "BdsDxe: loading\n"


def test_tail_of_what_is_not_there_is_empty(tmp_path):
    assert console.tail(tmp_path / "none") == ""


def test_tail_skips_blank_lines(tmp_path):
    path = tmp_path / "c"
    path.write_bytes(b"one\r\n\r\ntwo\r\nthree\r\n\r\n")
    assert console.tail(path, lines=2) == "two\nthree"


def test_a_full_console_is_put_aside_in_place(tmp_path):
    path = tmp_path / "c"
    with path.open("ab", buffering=0) as writer:  # as QEMU holds it
        writer.write(b"x" * 11)
        assert not console.bound(path, limit_bytes=11)
        assert console.bound(path, limit_bytes=10)
        writer.write(b"new")
    assert path.read_bytes() == b"new"
    assert (tmp_path / "c.1").read_bytes() == b"x" * 11


async def test_waiting_sees_what_comes_and_only_after_the_offset(tmp_path):
    path = tmp_path / "c"
    path.write_bytes(b"login: ")
    waiting = asyncio.create_task(
        console.wait_for(path, r"log(in|out)", deadline_s=10, offset=console.size(path))
    )
    await asyncio.sleep(0)
    with path.open("ab") as file:
        file.write(b"logout\r\n")
    assert (await waiting)[0] == "logout"


async def test_waiting_survives_a_console_put_aside(tmp_path):
    path = tmp_path / "c"
    path.write_bytes(b"x" * 100)
    waiting = asyncio.create_task(console.wait_for(path, "ready", deadline_s=10, offset=100))
    await asyncio.sleep(0)
    path.write_bytes(b"ready")
    assert (await waiting)[0] == "ready"


async def test_waiting_in_vain_shows_the_last_lines(tmp_path):
    path = tmp_path / "c"
    path.write_bytes(b"Kernel panic\r\n")
    with pytest.raises(console.ConsoleTimeoutError, match="Kernel panic"):
        await console.wait_for(path, "login:", deadline_s=0.01)


async def test_following_starts_over_when_the_file_shrinks(tmp_path):
    path = tmp_path / "c"
    path.write_bytes(b"first boot")
    stream = console.follow(path)
    assert await anext(stream) == b"first boot"
    path.write_bytes(b"2nd")
    assert await anext(stream) == b"2nd"
    await stream.aclose()
