"""Hosts as nodes, verbs as edits, lists and versions."""

import json

import pytest

from billet_server.core.host import parse_host
from billet_server.ironic import listing, nodes, replies, verbs
from billet_server.ironic.replies import IronicError

UID = "7551cfb4-d758-4ad8-9188-859ee53cf298"
IMAGE = {"url": "http://192.0.2.1/os.qcow2", "checksum": "0" * 32}
RETRY = {"metadata": {"annotations": {"billet.dev/retry": "now"}}}


def obj(state="provisioned", *, spec=None, annotations=None, **status):
    held = {"image": IMAGE} if state == "provisioned" else {}
    return {
        "metadata": {"namespace": "metal3", "name": "node01", "uid": UID,
                     "annotations": annotations or {}},
        "spec": {"bmc": {"address": "ipmi://192.0.2.9", "credentialsName": "bmc-secret-name"},
                 "online": True} | (spec or {}),
        "status": {"poweredOn": True, "provisioning": {"state": state} | held} | status,
    }  # fmt: skip


def host(*args, **more):
    return parse_host(obj(*args, **more))


def test_a_provisioned_host_is_what_the_seed_shows():
    node = nodes.render_node(obj(), "node01", "http://127.0.0.1:6385", "here")
    shown = [node[key] for key in nodes.SUMMARY if key != "links"]
    assert shown == [UID, "node01", UID, False, "power on", "active"]
    assert "bmc-secret-name" not in json.dumps(node)


@pytest.mark.parametrize(
    ("state", "error", "word"),
    [
        ("", "", "enroll"),
        ("registering", "", "verifying"),
        ("registering", "registration error", "enroll"),
        ("inspecting", "", "inspect wait"),
        ("inspecting", "inspection error", "inspect failed"),
        ("preparing", "", "manageable"),
        ("ready", "", "available"),
        ("available", "", "available"),
        ("provisioning", "", "deploying"),
        ("provisioning", "provisioning error", "deploy failed"),
        ("externally provisioned", "", "active"),
        ("deprovisioning", "", "deleting"),
    ],
)
def test_states(state, error, word):
    assert nodes.state_of(host(state, errorType=error))[0] == word


def test_a_field_is_left_out_before_its_version():
    node = nodes.render_node(obj(), "node01", "", "here")
    assert "name" not in nodes.trimmed(node, 1)
    assert nodes.trimmed(node, 5)["name"] == "node01"
    assert "disable_power_off" not in nodes.trimmed(node, 94)


@pytest.mark.parametrize(
    ("target", "state", "spec", "edit"),
    [
        ("active", "ready", {"image": IMAGE, "online": False}, {"spec": {"online": True}}),
        ("deleted", "provisioned", {"image": IMAGE}, {"spec": {"image": None}}),
        ("inspect", "ready", {}, {"metadata": {"annotations": {"inspect.metal3.io": ""}}}),
        ("adopt", "ready", {}, {"spec": {"externallyProvisioned": True}}),
        ("provide", "preparing", {}, None),
    ],
)
def test_provision_verbs(target, state, spec, edit):
    assert verbs.provision(host(state, spec=spec), {"target": target}, "now") == edit


def test_a_failed_deployment_is_tried_again():
    failed = host("provisioning", errorType="provisioning error")
    assert verbs.provision(failed, {"target": "active"}, "now") == RETRY


@pytest.mark.parametrize(
    ("target", "state", "status"),
    [
        ("active", "provisioned", 409),
        ("deleted", "ready", 409),
        ("deleted", "externally provisioned", 409),
        ("manage", "provisioned", 409),
        ("abort", "ready", 409),
        ("inspect", "provisioned", 409),
        ("active", "ready", 400),  # no image
        ("rebuild", "provisioned", 400),
        ("clean", "ready", 400),
        ("rescue", "provisioned", 400),
        ("fly", "ready", 400),
        (None, "ready", 400),
    ],
)
def test_refused_verbs(target, state, status):
    with pytest.raises(IronicError) as refused:
        verbs.provision(host(state), {"target": target}, "now")
    assert refused.value.status == status


@pytest.mark.parametrize(
    ("target", "state", "spec", "edit"),
    [
        ("power off", "provisioned", {}, {"spec": {"online": False}}),
        ("soft power off", "ready", {}, {"spec": {"online": False}}),
        ("power on", "ready", {}, None),
        ("rebooting", "ready", {"online": False}, {"spec": {"online": True}}),
        ("soft rebooting", "provisioned", {},
         {"metadata": {"annotations": {"reboot.metal3.io": '{"mode":"soft"}'}}}),
    ],
)  # fmt: skip
def test_power_verbs(target, state, spec, edit):
    assert verbs.power(host(state, spec=spec), {"target": target}) == edit


@pytest.mark.parametrize(
    ("target", "state", "spec", "status"),
    [
        ("power on", "provisioning", {}, 409),
        ("power off", "provisioned", {"disablePowerOff": True}, 400),
        ("sideways", "ready", {}, 400),
    ],
)
def test_refused_power(target, state, spec, status):
    with pytest.raises(IronicError) as refused:
        verbs.power(host(state, spec=spec), {"target": target})
    assert refused.value.status == status


def test_maintenance_is_the_pause():
    paused = "baremetalhost.metal3.io/paused"
    edit = {"metadata": {"annotations": {paused: "disk swap"}}}
    assert verbs.set_maintenance(host(), "disk swap") == edit
    marked = host(annotations={paused: "disk swap"})
    assert nodes.maintenance_of(marked) == (True, "disk swap", None)
    off = {"metadata": {"annotations": {paused: None}}}
    assert verbs.unset_maintenance(marked, "now") == off
    assert verbs.unset_maintenance(host(), "now") is None
    detached = host(annotations={"baremetalhost.metal3.io/detached": ""})
    with pytest.raises(IronicError, match="billet attach"):
        verbs.unset_maintenance(detached, "now")
    assert verbs.set_maintenance(host(annotations={paused: "metal3.io/capm3"}), "x") is None


@pytest.mark.parametrize("descending", [False, True])
def test_pages_together_are_the_list(descending):
    rows = [{"uuid": f"{n:02}", "name": f"host-{n % 3}"} for n in range(10)]
    given = {"limit": "3", "sort_key": "name", "sort_dir": "desc" if descending else "asc"}
    seen, more = [], True
    while more:
        part, more = listing.page(rows, listing.parse_query(given))
        seen += part
        given["marker"] = part[-1]["uuid"]
    assert sorted(row["uuid"] for row in seen) == [row["uuid"] for row in rows]
    assert [row["name"] for row in seen] == sorted(
        (row["name"] for row in rows), reverse=descending
    )


@pytest.mark.parametrize(
    "given",
    [
        {"limit": "many"},
        {"limit": "-1"},
        {"sort_dir": "up"},
        {"colour": "red"},
        {"detail": "true", "fields": "uuid"},
        {"detail": "perhaps"},
    ],
)
def test_bad_list_parameters(given):
    with pytest.raises(IronicError) as refused:
        listing.parse_query(given)
    assert refused.value.status == 400


@pytest.mark.parametrize("given", [{"marker": "gone"}, {"sort_key": "links"}, {"sort_key": "x"}])
def test_bad_markers_and_keys(given):
    with pytest.raises(IronicError):
        listing.page([{"uuid": "1", "links": []}], listing.parse_query(given))


@pytest.mark.parametrize(
    ("filters", "passes"),
    [
        ({"provision_state": "active"}, True),
        ({"provision_state": "available"}, False),
        ({"maintenance": "False"}, True),
        ({"associated": "true"}, True),
        ({"driver": "redfish"}, False),
        ({"owner": "me"}, False),
    ],
)
def test_filters(filters, passes):
    one = host()
    assert listing.matcher(filters)(one, nodes.render_summary(one)) is passes


def test_versions():
    assert replies.negotiate({}) == 1
    assert replies.negotiate({replies.VERSION: "1.115"}) == 115
    assert replies.negotiate({"OpenStack-API-Version": "compute 2.1, baremetal 1.72"}) == 72
    for asked, status in (("1.116", 406), ("2.1", 406), ("1.0", 406), ("new", 400)):
        with pytest.raises(IronicError) as refused:
            replies.negotiate({replies.VERSION: asked})
        assert refused.value.status == status


def test_an_error_is_json_in_json():
    fault = json.loads(replies.error_body(409, "busy")["error_message"])
    assert fault == {"faultcode": "Client", "faultstring": "busy", "debuginfo": None}
