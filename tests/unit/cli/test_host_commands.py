"""Commands that set annotations and fields: what they say, what they set, and when they refuse."""

import json
import shlex

import pytest

from billet_server.cli import host_commands
from billet_server.core.annotations import DETACHED, HARDWARE_DETAILS, INSPECT, PAUSED, REBOOT

IMAGE = "http://192.0.2.1/a.qcow2"
OTHER_IMAGE = "http://192.0.2.1/b.qcow2"
HELD = {"url": IMAGE, "checksum": "http://192.0.2.1/sums"}
RETRY = "billet.dev/retry"


@pytest.mark.parametrize(
    ("words", "key", "value"),
    [
        (["pause"], PAUSED, "billet pause"),
        (["pause", "--reason", "ask Ines"], PAUSED, "ask Ines"),
        (["detach"], DETACHED, ""),
        (["detach", "--force", "--delete-action", "delay"], DETACHED,
         '{"deleteAction":"delay","force":true}'),
        (["reboot"], REBOOT, ""),
        (["reboot", "--mode", "hard"], REBOOT, '{"mode":"hard"}'),
        (["reboot", "--mode", "hard", "--force"], REBOOT, '{"mode":"hard","force":true}'),
        (["reboot", "--hold", "night"], f"{REBOOT}/night", ""),
    ],
)  # fmt: skip
async def test_an_annotation_is_set_and_said_as_it_is_and_as_kubectl_would(
    world, words, key, value
):
    await world.host()
    verb, *options = words
    dry = await world.cli(verb, "node01", *options, "--dry-run")
    assert "not set" in dry
    assert await world.annotations() == {}
    text = await world.cli(verb, "node01", *options)
    assert await world.annotations() == {key: value}
    shown = value or '""'
    assert f'metal3/node01: metadata.annotations["{key}"] = {shown}\n' in text
    (command,) = [line for line in text.splitlines() if "kubectl" in line]
    assert shlex.split(command) == [
        "kubectl", "annotate", "--overwrite", "-n", "metal3", "baremetalhost", "node01",
        f"{key}={value}",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "key"),
    [(["unpause"], PAUSED), (["attach"], DETACHED), (["reboot", "--release", "a"], f"{REBOOT}/a")],
)
async def test_an_annotation_is_taken_off(world, words, key):
    await world.host(annotations={key: ""})
    verb, *options = words
    text = await world.cli(verb, "node01", *options)
    assert await world.annotations() == {}
    assert f'metadata.annotations["{key}"] removed' in text
    assert f"node01 {key}-" in text
    again = await world.cli(verb, "node01", *options)
    assert "nothing to change" in again


async def test_retry_stamps_the_time(world):
    await world.host(problem={"id": "bmc-auth", "message": "refused", "advice": "correct it"})
    text = await world.cli("retry", "node01")
    assert (await world.annotations())[RETRY].endswith("Z")
    assert "bmc-auth stands until something is changed: correct it" in text


async def test_pausing_leaves_somebody_elses_pause_alone(world):
    await world.host(annotations={PAUSED: "metal3.io/capm3"})
    assert "paused already, by metal3.io/capm3" in await world.cli("pause", "node01")
    assert (await world.annotations())[PAUSED] == "metal3.io/capm3"
    assert "Cluster API" in await world.cli("unpause", "node01")


@pytest.mark.parametrize("order", [("node01", "off"), ("off", "node01")])
async def test_power_sets_online(world, order):
    await world.host()
    text = await world.cli("power", *order)
    assert (await world.get())["spec"]["online"] is False
    assert "metal3/node01: spec.online = false\n" in text
    assert """-p '{"spec":{"online":false}}'""" in text
    assert "nothing to change" in await world.cli("power", *order)


async def test_power_status_tells_what_is_and_what_is_wanted(world):
    await world.host("node01")
    await world.host("node02", poweredOn=False, annotations={f"{REBOOT}/night": ""})
    lines = (await world.cli("power", "-A", "status")).splitlines()
    assert lines == ["metal3/node01  on",
                     "metal3/node02  off  (wanted at rest: on)  (held off by night)"]  # fmt: skip
    facts = json.loads(await world.cli("power", "node02", "status", "-o", "json"))
    assert facts == [{"namespace": "metal3", "name": "node02", "poweredOn": False, "online": True,
                      "heldOffBy": ["night"]}]  # fmt: skip


@pytest.mark.parametrize(("words", "said"), [
    (["power", "node01"], "say on, off or status"),
    (["power", "node01", "cycle"], "billet reboot"),
    (["reboot", "a", "--hold", "x", "--release", "x"], "either --hold or --release"),
    (["reboot"], "say which: HOST"),
    (["reboot", "a", "-A"], "either HOST names"),
    (["reboot", "-l", "a=b=c"], "unable to parse requirement"),
    (["reboot", "a", "--timeout", "soon"], "no time such as 90s"),
])  # fmt: skip
async def test_a_wrong_command_line_is_exit_code_2(world, words, said):
    assert said in await world.cli(*words, code=2)


@pytest.mark.parametrize(
    ("words", "where", "said"),
    [
        (["reboot"], {"state": "inspecting"}, "waits: inspecting: acts in provisioned"),
        (["reboot"], {"spec": {"online": False}}, "has no effect: spec.online is false"),
        (["reboot"], {"annotations": {PAUSED: ""}}, "waits: the host is paused"),
        (["reboot"], {"annotations": {DETACHED: ""}}, "waits: the host is detached"),
        (["detach"], {"state": "provisioning"}, "waits: provisioning: acts in ready"),
        (["inspect"], {}, "a running machine is not inspected"),
        (["inspect"], {"state": "registering"}, "acts once the host is ready"),
        (["power", "off"], {"state": "inspecting"}, "the power follows once it is at rest"),
        (["retry"], {}, "there is nothing to try again"),
    ],
)
async def test_a_state_in_which_nothing_follows_is_told(world, words, where, said):
    await world.host(**where)
    text = await world.cli(words[0], "node01", *words[1:], "--dry-run")
    assert said in text


async def test_force_takes_the_remark_away(world):
    await world.host(state="inspecting")
    assert "waits" not in await world.cli("reboot", "node01", "--force", "--dry-run")
    assert "waits" not in await world.cli("detach", "node01", "--force", "--dry-run")


async def test_inspection_and_hardware_of_a_file(world):
    await world.host(state="ready")
    await world.cli("inspect", "node01")
    assert await world.annotations() == {INSPECT: ""}
    await world.host("node02", spec={"inspectionMode": "disabled"})
    hardware = {"cpu": {"arch": "x86_64", "count": 4}, "ramMebibytes": 1024}
    for content in (hardware, {"kind": "HardwareData", "spec": {"hardware": hardware}},
                    {"kind": "BareMetalHost", "status": {"hardware": hardware}}):  # fmt: skip
        file = world.write("hardware.yaml", content)
        await world.cli("inspect", "node02", "--hardware", file)
        assert json.loads((await world.annotations("node02"))[HARDWARE_DETAILS]) == hardware
        await world.annotate("node02", **{HARDWARE_DETAILS: None})


@pytest.mark.parametrize("content", ["", "[1]", "{}", "kind: HardwareData\n", "a: [b"])
def test_a_file_without_hardware_is_refused(tmp_path, content):
    file = tmp_path / "hardware"
    file.write_text(content)
    with pytest.raises(host_commands.click.UsageError, match=r"hardware"):
        host_commands.read_hardware(str(file))


async def test_provision_sets_image_power_and_secrets(world):
    await world.host(state="ready", spec={"online": False})
    file = world.write("cloud-config", "#cloud-config\nsecret: marker-4711\n")
    words = ("provision", "node01", "--image", IMAGE, "--checksum", "http://192.0.2.1/sums",
             "--user-data", file)  # fmt: skip
    dry = await world.cli(*words, "--dry-run")
    assert "spec" in dry
    assert "image" not in (await world.get())["spec"]
    text = await world.cli(*words)
    spec = (await world.get())["spec"]
    assert (spec["image"], spec["online"]) == (HELD, True)
    assert spec["userData"] == {"name": "node01-user-data", "namespace": "metal3"}
    assert "marker-4711" not in text + dry
    assert (
        f"kubectl create secret generic -n metal3 node01-user-data --from-file=userData={file}"
        in text
    )
    assert "nothing to change" not in await world.cli(*words)


async def test_what_wipes_disks_asks_first(world):
    await world.host(spec={"image": HELD}, provisioning={"state": "provisioned", "ID": "",
                                                         "image": HELD})  # fmt: skip
    text = await world.cli("deprovision", "node01", code=2)
    assert f"it runs {IMAGE}; its disks are wiped" in text
    assert "--yes" in text
    words = ("provision", "node01", "--image", OTHER_IMAGE, "--checksum", "http://192.0.2.1/sums")
    assert "all its disks are wiped first" in await world.cli(*words, code=2)
    assert (await world.get())["spec"]["image"] == HELD
    assert "spec.image removed" in await world.cli("deprovision", "node01", "-y", "--power-off")
    spec = (await world.get())["spec"]
    assert "image" not in spec
    assert spec["online"] is False


async def test_several_hosts_by_name_all_and_labels(world):
    await world.host("node01", labels={"rack": "a"})
    await world.host("node02", labels={"rack": "b"})
    await world.host("node03", "other", labels={"rack": "a"})
    assert "3 hosts" in await world.cli("pause", "-A", code=2)
    await world.cli("pause", "-l", "rack in (a)", "--yes")
    paused = [("node01", "metal3"), ("node03", "other")]
    for name, namespace in [*paused, ("node02", "metal3")]:
        assert (PAUSED in await world.annotations(name, namespace)) == ((name, namespace) in paused)
    await world.cli("unpause", "-A", "-n", "other", "-y")
    assert PAUSED not in await world.annotations("node03", "other")
    assert PAUSED in await world.annotations("node01")
    await world.cli("pause", "node02", "other/node03")
    assert PAUSED in await world.annotations("node03", "other")
    assert "no host with rack=c" in await world.cli("pause", "-l", "rack=c", code=1)


async def test_unknown_and_ambiguous_names(world):
    await world.host("node01")
    await world.host("node01", "other")
    await world.host("worker", "other")
    text = await world.cli("reboot", "node01", code=1)
    assert "metal3/node01, other/node01" in text
    assert "did you mean other/worker?" in await world.cli("reboot", "worke", code=1)
    assert "did you mean other/worker?" in await world.cli("status", "worke", code=1)
    assert "in namespace metal3" in await world.cli("reboot", "worker", "-n", "metal3", code=1)
    assert "not in namespace metal3" in await world.cli("reboot", "other/worker", "-n", "metal3",
                                                        code=1)  # fmt: skip
    await world.cli("reboot", "worker")
    assert REBOOT in await world.annotations("worker", "other")


async def test_what_the_api_refuses_is_told_of_each_host(world):
    await world.host("node01", state="ready")
    await world.host("node02", state="ready")
    text = await world.cli("provision", "node01", "node02", "--image", "file:///etc/shadow",
                           "--checksum", "0" * 32, code=1)  # fmt: skip
    refused = [line for line in text.splitlines() if "file:///etc/shadow" in line]
    assert [line[:22] for line in refused] == ["billet: metal3/node01:", "billet: metal3/node02:"]
    assert "image" not in (await world.get())["spec"]


async def test_json_says_everything(world):
    await world.host()
    (one,) = json.loads(await world.cli("reboot", "node01", "--mode", "hard", "-o", "json"))
    assert one["changes"] == [{"field": "/metadata/annotations/reboot.metal3.io",
                               "value": '{"mode":"hard"}'}]  # fmt: skip
    assert one["applied"] is True
    assert one["remarks"] == []
    assert "kubectl annotate" in one["kubectl"][0]
    (one,) = json.loads(await world.cli("power", "node01", "off", "-o", "json", "--dry-run"))
    assert one["applied"] is False
    assert one["changes"] == [{"field": "/spec/online", "value": False}]


async def test_an_unreachable_api_is_one_sentence(world):
    await world._server.stop()
    text = await world.cli("reboot", "node01", code=1)
    assert len(text.splitlines()) == 1
    assert "cannot be reached" in text


async def test_missing_rights_are_one_sentence(world):
    await world.host()
    config = world.kubeconfig.read_text()
    world.kubeconfig = world.write("kubeconfig-bad", config.replace("token: ", "token: x"))
    text = await world.cli("reboot", "node01", code=1)
    assert len(text.splitlines()) == 1
    assert "401" in text
