"""Statuses that nobody of ours wrote, and statuses written by a server of another time."""

import msgspec
import pytest

from billet_server.core.host import (
    Boot,
    CredentialsStatus,
    History,
    Image,
    Period,
    ProblemStatus,
    Progress,
    Provisioning,
    SecretReference,
    Status,
    Waiting,
    copy_status,
    host_patch,
    parse_host,
    render_status,
)
from billet_server.core.machine import step, trouble
from billet_server.core.problems import Fault
from billet_server.core.seen import Rules, SecretSeen, Seen
from billet_server.core.states import State, read_state
from core_world import START

SPEC = {
    "bmc": {"address": "ipmi://1.2.3.4", "credentialsName": "s"},
    "bootMACAddress": "00:c2:fc:3b:e1:01",
    "online": True,
    "image": {"url": "http://x/a.qcow2", "checksum": "0" * 32},
}
SEEN = Seen("0" * 32, START, SecretSeen("1"))


def an_object(status: object) -> dict:
    meta = {"name": "n", "namespace": "ns", "uid": "u", "generation": 1, "resourceVersion": "1"}
    meta["finalizers"] = ["baremetalhost.metal3.io"]
    return {"metadata": meta, "spec": SPEC, "status": status}


@pytest.mark.parametrize(
    "status",
    [
        {"provisioning": {"state": "servicing the moon"}},
        {"provisioning": {"state": 7}},
        {"provisioning": "provisioned"},
        {"provisioning": {"state": "provisioned", "image": 3}},
        {"provisioning": {"state": "power management error"}},
        ["provisioned"],
    ],
)
def test_a_host_whose_state_nobody_knows_is_left_alone(status):
    host = parse_host(an_object(status))
    decision = step(host, SEEN, START, Rules())
    assert decision.effect is None
    assert decision.status.problem.id == "status-invalid"
    assert "ns/n" in decision.status.error_message
    if isinstance(status, dict):
        assert "provisioning" not in host_patch(an_object(status), host, decision.status)


@pytest.mark.parametrize(
    "junk",
    [
        {"boot": {"nonce": 4.5}},
        {"problem": "bad"},
        {"hardware": [1]},
        {"operationHistory": {"inspect": {"start": "yesterday"}}},
        {"errorCount": "many"},
        {"waiting": 1},
    ],
)
def test_junk_beside_a_good_state_never_reinspects_a_running_machine(junk):
    held = {"state": "provisioned", "image": {"url": "http://x/a.qcow2"}}
    host = parse_host(an_object({"provisioning": held, "poweredOn": True} | junk))
    assert not host.status_fault
    assert host.status.provisioning.image.url == "http://x/a.qcow2"
    decision = step(host, SEEN, START, Rules())
    assert read_state(decision.status.provisioning.state) is State.PROVISIONED


def test_old_words_are_read():
    assert read_state("available") is State.READY
    assert read_state("provisioning error") is State.NONE


def test_the_servers_own_trouble_is_said_once_and_taken_back():
    good = {"credentials": {"name": "s", "namespace": "ns"}, "credentialsVersion": "1"}
    held = {"state": "provisioned", "image": {"url": "http://x/a.qcow2"}}
    host = parse_host(an_object({"provisioning": held, "goodCredentials": good}))
    said = trouble(host, Fault("internal", "ns/n: oops"), START, Rules())
    assert said.status.problem.id == "internal"
    assert said.effect is None
    assert len(said.events) == 1
    written = parse_host(an_object(render_status(said.status)))
    again = trouble(written, Fault("internal", "ns/n: oops"), START, Rules())
    assert not again.events
    assert again.status.error_count == 1
    decision = step(parse_host(an_object(render_status(said.status))), SEEN, START, Rules())
    assert decision.status.problem is None


def test_a_copy_shares_nothing_that_a_step_changes():
    one = Period(start=START)
    status = Status(
        provisioning=Provisioning(state="ready", image=Image("u")),
        progress=Progress("s"),
        waiting=Waiting("c"),
        boot=Boot("n"),
        problem=ProblemStatus("p"),
        operation_history=History(one, one, one, one),
        good_credentials=CredentialsStatus(SecretReference("s"), "1"),
        tried_credentials=CredentialsStatus(SecretReference("s"), "1"),
        hardware={"cpu": {}},
    )
    shared = {id(part) for part in _structs(copy_status(status))} & {
        id(part) for part in _structs(status)
    }
    assert not shared
    assert copy_status(status) == status


def _structs(value):
    """Every struct below that can be changed."""
    for name in value.__struct_fields__:
        part = getattr(value, name)
        if isinstance(part, msgspec.Struct) and not part.__struct_config__.frozen:
            yield part
            yield from _structs(part)
