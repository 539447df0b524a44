"""`billet status`: rows, the sheet of one host, and following changes."""

import asyncio
import json
from datetime import UTC, datetime, timedelta

import pytest
from rich.console import Console

from billet_server import errors
from billet_server.cli.root import run_cli
from billet_server.cli.status import follow_hosts, list_hosts, print_hosts
from billet_server.cli.status_view import render_details, render_table, summary_line
from billet_server.core.annotations import DETACHED, INSPECT, PAUSED, REBOOT
from billet_server.core.host import parse_host
from billet_server.memory.kube import MemoryKube
from billet_server.ports import BARE_METAL_HOST

NOW = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)


def ago(seconds: int) -> str:
    return (NOW - timedelta(seconds=seconds)).isoformat()


def an_object(name: str = "node01", **status):
    return {
        "metadata": {"namespace": "metal3", "name": name, "uid": f"uid-{name}"},
        "spec": {
            "bmc": {"address": "ipmi://192.0.2.7", "credentialsName": "secret"},
            "bootMACAddress": "00:c2:fc:3b:e1:01",
            "online": True,
            "image": {"url": "http://192.0.2.1/a.qcow2", "checksum": "http://192.0.2.1/sums"},
        },
        "status": status,
    }


WRITING = {
    "poweredOn": True,
    "provisioning": {"state": "provisioning"},
    "progress": {
        "step": "write",
        "percent": 42,
        "doneBytes": 3 << 30,
        "totalBytes": 7 << 30,
        "rateBytesPerSecond": 200 << 20,
        "etaSeconds": 20,
        "startedAt": ago(75),
    },
    "waiting": {"cause": "agent-job", "message": "agent runs deploy", "since": ago(80),
                "actor": "agent"},
}  # fmt: skip
REFUSED = {
    "poweredOn": False,
    "provisioning": {"state": "registering"},
    "errorMessage": "metal3/node02: BMC refused [admin] (bmc-auth); correct the Secret",
    "errorCount": 3,
    "problem": {
        "id": "bmc-auth",
        "message": "metal3/node02: BMC refused [admin]",
        "evidence": "RAKP 2: unauthorized name\x1b[2J",
        "advice": "correct the Secret",
        "since": ago(200),
        "nextRetryAt": (NOW + timedelta(seconds=30)).isoformat(),
    },
}


def shown(renderable, width: int = 1000) -> str:
    console = Console(width=width, force_terminal=False)
    with console.capture() as capture:
        console.print(renderable)
    return capture.get()


def test_a_row_tells_state_step_figures_and_times():
    text = shown(render_table([parse_host(an_object(**WRITING))], NOW))
    head, row = text.splitlines()
    assert head.split("  ")[0] == "HOST"
    figures = "42% 3072/7168 MiB 200 MiB/s 20s left"
    for word in ("metal3/node01", "provisioning", "on", "write", figures,
                 "75s", "agent runs deploy"):  # fmt: skip
        assert word in row


def test_a_problem_takes_the_place_of_the_wait_and_is_no_markup():
    row = shown(render_table([parse_host(an_object("node02", **REFUSED))], NOW)).splitlines()[1]
    assert "bmc-auth: BMC refused [admin]" in row
    assert "3m20s" in row


def test_wide_adds_what_is_wanted_and_where():
    text = shown(render_table([parse_host(an_object(**WRITING))], NOW, wide=True))
    for word in ("WANTED", "ipmi://192.0.2.7", "http://192.0.2.1/a.qcow2", "UNTIL"):
        assert word in text


def test_a_table_fits_a_hundred_columns_and_keeps_names_whole():
    hosts = [parse_host(an_object(**WRITING)), parse_host(an_object("node02", **REFUSED))]
    lines = shown(render_table(hosts, NOW), width=100).splitlines()
    assert max(map(len, lines)) <= 100
    assert any(line.startswith("metal3/node01") for line in lines)
    assert any(line.startswith("metal3/node02") for line in lines)


def test_the_sheet_of_a_host_has_evidence_advice_and_the_next_try():
    text = shown(render_details([parse_host(an_object("node02", **REFUSED))], NOW))
    for word in ("bmc-auth", "RAKP 2", "correct the Secret", "in 30s", "3",
                 "docs/troubleshooting.md#bmc-auth", "at rest: on"):  # fmt: skip
        assert word in text
    assert "\x1b" not in text


def test_the_next_try_and_how_many_are_left_stand_in_row_and_sheet():
    problem = {**REFUSED["problem"], "retriesLeft": 4}
    host = parse_host(an_object("node02", **{**REFUSED, "problem": problem}))
    assert "(next try in 30s; 4 left)" in shown(render_table([host], NOW))
    assert "in 30s; 4 left" in shown(render_details([host], NOW))
    problem = {"id": "retries-exhausted", "cause": "image-fetch", "message": "given up"}
    host = parse_host(an_object("node02", **{**REFUSED, "problem": problem}))
    assert "next try" not in shown(render_table([host], NOW))
    assert "`billet retry` (the last was image-fetch)" in shown(render_details([host], NOW))


def test_the_sheet_tells_what_was_asked_for_by_annotation():
    obj = an_object(provisioning={"state": "preparing"}, operationalStatus="detached")
    obj["metadata"]["annotations"] = {
        PAUSED: "ask Ines", DETACHED: "", REBOOT: "", f"{REBOOT}/night": "", INSPECT: "disabled",
    }  # fmt: skip
    text = shown(render_details([parse_host(obj)], NOW))
    lines = {line.split("  ")[0]: line for line in text.splitlines()}
    assert "preparing (paused, detached)" in lines["state"]
    assert "ask Ines; `billet unpause`" in lines["paused"]
    assert "billet attach" in lines["detached"]
    assert "night" in lines["held off by"]
    assert lines["asked for"].rstrip().endswith("  a reboot")
    assert "preparing (paused, detached)" in shown(render_table([parse_host(obj)], NOW))
    waiting = an_object(operationalStatus="OK")
    waiting["metadata"]["annotations"] = {DETACHED: ""}
    assert "not done yet" in shown(render_details([parse_host(waiting)], NOW))


def test_the_sheet_has_the_conditions_in_a_line():
    conditions = [
        {"type": "Ready", "status": "True", "reason": "Provisioned"},
        {"type": "Manageable", "status": "False", "reason": "BmcAuth"},
        {"type": "Healthy", "status": "Unknown", "reason": "NotReported"},
    ]
    text = shown(render_details([parse_host(an_object(conditions=conditions))], NOW))
    (line,) = [line for line in text.splitlines() if line.startswith("conditions")]
    assert line.removeprefix("conditions").strip() == "Ready; not Manageable (BmcAuth)"


def test_new_and_absent_hosts():
    assert "(new)" in shown(render_table([parse_host(an_object())], NOW))
    assert "There are no hosts." in shown(render_table([], NOW))
    assert "There is no such host." in shown(render_details([], NOW))


def test_a_summary_line_does_not_change_with_bytes_alone():
    later = {**WRITING, "progress": {**WRITING["progress"], "doneBytes": 4 << 30}}
    on = {**WRITING, "progress": {**WRITING["progress"], "percent": 43}}
    one, two, three = (summary_line(parse_host(an_object(**s))) for s in (WRITING, later, on))
    assert one == two != three
    assert one.startswith("metal3/node01  provisioning  power on  write 42%")


async def test_listing_by_namespace_and_name():
    api = MemoryKube(namespaces=("metal3", "other"))
    for namespace, name in (("metal3", "b"), ("metal3", "a"), ("other", "a")):
        await api.create(BARE_METAL_HOST, {"metadata": {"namespace": namespace, "name": name}})

    async def names(namespace, name):
        found = await list_hosts(api, namespace, name)
        return [(o["metadata"]["namespace"], o["metadata"]["name"]) for o in found]

    assert await names(None, None) == [("metal3", "a"), ("metal3", "b"), ("other", "a")]
    assert await names("metal3", None) == [("metal3", "a"), ("metal3", "b")]
    assert await names(None, "a") == [("metal3", "a"), ("other", "a")]
    assert await names("metal3", "c") == []


async def test_following_sees_changes_outages_and_ends():
    api = MemoryKube(namespaces=("metal3",))
    seen: asyncio.Queue = asyncio.Queue()

    def show(found, remark):
        seen.put_nowait((sorted(o["metadata"]["name"] for o in found), bool(remark)))

    async def until(expected):
        async with asyncio.timeout(30):
            while await seen.get() != expected:
                pass

    task = asyncio.create_task(follow_hosts(api, "metal3", None, show, again_s=0.01))
    try:
        await until(([], False))
        await api.create(BARE_METAL_HOST, {"metadata": {"namespace": "metal3", "name": "a"}})
        await until((["a"], False))
        api.unavailable = True
        await until((["a"], True))
        api.unavailable = False
        await until((["a"], False))
        await api.create(BARE_METAL_HOST, {"metadata": {"namespace": "metal3", "name": "b"}})
        await until((["a", "b"], False))
        await api.delete(BARE_METAL_HOST, "metal3", "a")
        await until((["b"], False))
    finally:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_an_api_error_that_time_does_not_heal_ends_the_following():
    class Refusing(MemoryKube):
        async def list(self, kind, namespace=None, *, labels=None):
            raise errors.ApiError("list hosts: 403 Forbidden", 403, "Forbidden")

    with pytest.raises(errors.ApiError, match="Forbidden"):
        await follow_hosts(Refusing(), None, None, lambda found, remark: None)


def test_an_api_that_is_not_there_is_one_sentence(capsys, tmp_path):
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(
        "apiVersion: v1\nkind: Config\n"
        "clusters: [{name: c, cluster: {server: 'http://127.0.0.1:9'}}]\n"
        "users: [{name: u, user: {}}]\n"
        "contexts: [{name: x, context: {cluster: c, user: u}}]\ncurrent-context: x\n"
    )
    assert run_cli(["status", "--kubeconfig", str(kubeconfig)], []) == 1
    err = capsys.readouterr().err
    assert err.startswith("billet: ")
    assert "127.0.0.1:9" in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("output", ["table", "wide"])
def test_what_is_piped_is_neither_wrapped_nor_padded(capsys, output):
    print_hosts([an_object(**WRITING), an_object("node02", **REFUSED)], None, output)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert [line for line in lines if line != line.rstrip()] == []


def test_json_is_the_objects(capsys):
    print_hosts([an_object(**WRITING)], "node01", "json")
    assert json.loads(capsys.readouterr().out) == [an_object(**WRITING)]


@pytest.mark.parametrize(
    ("annotations", "status", "word"),
    [
        ({}, {}, "provisioned"),
        ({"baremetalhost.metal3.io/paused": ""}, {}, "provisioned (paused)"),
        ({}, {"operationalStatus": "detached"}, "provisioned (detached)"),
        (
            {"baremetalhost.metal3.io/paused": "x"},
            {"operationalStatus": "detached"},
            "provisioned (paused, detached)",
        ),
    ],
)
def test_paused_and_detached_are_said_beside_the_state(annotations, status, word):
    obj = an_object(provisioning={"state": "provisioned"}, poweredOn=True, **status)
    obj["metadata"]["annotations"] = annotations
    row = shown(render_table([parse_host(obj)], NOW)).splitlines()[1]
    assert f" {word}  " in row
    assert f"  {word}  power on" in summary_line(parse_host(obj))
