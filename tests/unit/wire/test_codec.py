"""Frames: every message goes there and back; whatever else comes is a WireError."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billet_wire import (
    AgentMessage,
    CancelJob,
    Clean,
    CleanResult,
    Deploy,
    DeployResult,
    Goodbye,
    HandOver,
    Hello,
    ImageSource,
    Inspect,
    Job,
    JobProblem,
    JobReport,
    Log,
    Progress,
    Refused,
    RootDeviceHints,
    RunJob,
    ServerMessage,
    Welcome,
    WireError,
    decode_agent,
    decode_server,
    encode,
)

IMAGE = ImageSource("http://h/i", "http://h/sums", "md5", "qcow2")
HINTS = RootDeviceHints(device_name="/dev/vda", min_size_gigabytes=4, rotational=False)
DEPLOYED = DeployResult("/dev/vda", "only", 1, 2, "md5:0", "UEFI", None, {"write": 1.5})


@pytest.mark.parametrize(
    "message",
    [
        Welcome("metal/node-1", 10.0),
        Refused("stale", "words", 3.5),
        CancelJob("id"),
        RunJob(Job("1", Inspect())),
        RunJob(Job("2", Clean())),
        RunJob(Job("3", Deploy(IMAGE, HINTS, b"\0\xffiso", clean=False))),
        RunJob(Job("4", HandOver("power-off"))),
        RunJob(Job("5", Deploy(ImageSource("http://h/i", "0" * 32, mirrors=("http://m/i",))))),
        RunJob(Job("6", Deploy(ImageSource("http://h/i", "0" * 32, rate_bytes_s=1 << 20)))),
    ],
)
def test_server_messages(message: ServerMessage) -> None:
    assert decode_server(encode(message)) == message


@pytest.mark.parametrize(
    "message",
    [
        Hello("token", "id", ("52:54:00:00:00:01",), "UEFI", 9.5, "0.1.0"),
        Hello("t", "i", (), "legacy", 0.0, "0", jobs=(JobReport("j", "clean", "cancelled"),)),
        JobReport("j", "deploy", "running", Progress("write", 1.5, 1, 2, 3.5, 4.5, "é")),
        JobReport("j", "clean", "succeeded", clean=CleanResult(("/dev/vda",), (("b", "ro"),))),
        JobReport("j", "deploy", "succeeded", deploy=DEPLOYED),
        JobReport("j", "deploy", "failed", problem=JobProblem("image-fetch", "404", "e", "a")),
        Log("warning", "words", 1.0),
        Goodbye("reboot"),
    ],
)
def test_agent_messages(message: AgentMessage) -> None:
    assert decode_agent(encode(message)) == message


def test_hints_have_metal3s_names() -> None:
    frame = json.loads(encode(RunJob(Job("3", Deploy(IMAGE, HINTS)))))
    assert frame["type"] == "run-job"
    assert frame["job"]["params"]["kind"] == "deploy"
    assert frame["job"]["params"]["hints"] == {
        "deviceName": "/dev/vda",
        "minSizeGigabytes": 4,
        "rotational": False,
    }


def test_fields_of_a_later_version_are_no_fault() -> None:
    assert decode_server('{"type":"cancel-job","id":"x","new":1}') == CancelJob("x")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"type":"hello"}',
        '{"type":"welcome"}',
        '{"type":"goodbye","reason":"lunch"}',
        '{"type":"cancel-job","id":7}',
        '{"type":"run-job","job":{"id":"x","params":{"kind":"format-c"}}}',
        '{"type":"goodbye","reason":"stop"',
        b"\xff\xfe",
        "[" * 100_000,
    ],
)
def test_what_is_no_message(text: str | bytes) -> None:
    with pytest.raises(WireError, match="not a message of a server"):
        decode_server(text)
    with pytest.raises(WireError, match="not a message of an agent"):
        decode_agent(text)


@given(st.one_of(st.text(), st.binary()))
def test_any_text_is_a_message_or_a_wire_error(text: str | bytes) -> None:
    for decode in (decode_agent, decode_server):
        with pytest.raises(WireError):
            decode(text)
