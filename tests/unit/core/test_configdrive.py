"""What is on the config drive: Metal3's keys and defaults."""

import json

import pytest

from billet_server.core.configdrive import pick, render_tree
from billet_server.core.terms import HostKey

KEY = HostKey("metal3", "node01")
DEFAULTS = {
    "uuid": "uid-1",
    "name": "node01",
    "local-hostname": "node01",
    "local_hostname": "node01",
    "hostname": "node01",
    "metal3-name": "node01",
    "metal3-namespace": "metal3",
}


def tree(**data):
    given = {"user_data": None, "meta_data": None, "network_data": None} | data
    return render_tree(KEY, "uid-1", **given)


def test_without_secrets_there_are_the_defaults_only():
    files = tree()
    assert json.loads(files["openstack/latest/meta_data.json"]) == DEFAULTS
    assert set(files) == {f"openstack/latest/{name}_data.json" for name in ("meta", "vendor")}


def test_a_users_meta_data_overlays_the_defaults():
    files = tree(meta_data={"local-hostname": "web", "rack": 7})
    expected = DEFAULTS | {"local-hostname": "web", "rack": 7}
    assert json.loads(files["openstack/latest/meta_data.json"]) == expected


def test_user_data_is_kept_as_it_is_and_network_data_is_json():
    links = {"links": [{"id": "eno1"}]}
    files = tree(user_data=b"#cloud-config\n\xff", network_data=links)
    assert files["openstack/latest/user_data"] == b"#cloud-config\n\xff"
    assert json.loads(files["openstack/latest/network_data.json"]) == links


@pytest.mark.parametrize("key", ["userData", "networkData", "metaData"])
def test_the_key_of_its_name_or_else_value(key):
    assert pick({key: b"own", "value": b"fallback"}, key) == b"own"
    assert pick({"value": b"fallback", "userdata": b"no"}, key) == b"fallback"
    assert pick({"other": b""}, key) is None
