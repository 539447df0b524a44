"""What the tests do to a cluster that is not theirs: `make test-cluster` leaves it as it was."""

import json

import pytest

from clusters import CRDS, GivenCluster, new_namespace

pytestmark = [pytest.mark.cluster, pytest.mark.own_api]

NAMES = ("baremetalhosts.metal3.io", "hardwaredata.metal3.io", "machines.cluster.k8s.io")
HOST = """{"apiVersion": "metal3.io/v1alpha1", "kind": "BareMetalHost",
"metadata": {"name": "theirs", "namespace": "default"}, "spec": {"online": false}}"""


@pytest.fixture
def given(own_api):
    """A cluster without our definitions, which get back afterwards what they were."""
    own_api.kubectl("delete", "crd", *NAMES, "--ignore-not-found")
    yield GivenCluster(own_api.kubeconfig)
    own_api.kubectl("delete", "crd", *NAMES, "--ignore-not-found")
    own_api.install()


def definitions(given):
    listed = json.loads(given.kubectl("get", "crds", "-o", "json"))["items"]
    return {crd["metadata"]["name"]: crd["metadata"]["uid"] for crd in listed}


def test_what_was_missing_goes_again(given):
    with given.opened():
        assert set(definitions(given)) == set(NAMES)
        given.kubectl("create", "namespace", name := new_namespace())
        given.kubectl("delete", "namespace", name, "--wait=false")
    assert definitions(given) == {}
    assert name not in given.kubectl("get", "namespaces", "-o", "name")


def test_what_was_there_stays(given):
    given.kubectl("apply", "--server-side", "-f", CRDS)
    before = definitions(given)
    with given.opened():
        pass
    assert definitions(given) == before


def test_what_others_began_to_use_stays(given, tmp_path):
    (tmp_path / "host.json").write_text(HOST)
    with given.opened():
        given.kubectl("apply", "-f", tmp_path / "host.json")
    assert set(definitions(given)) == {NAMES[0]}
    given.kubectl("delete", "baremetalhost", "-n", "default", "theirs")


def test_another_definition_is_refused_and_left_alone(given):
    given.kubectl("apply", "--server-side", "-f", CRDS)
    patch = '[{"op": "add", "path": "/spec/names/categories", "value": ["theirs"]}]'
    given.kubectl("patch", "crd", NAMES[0], "--type=json", "-p", patch)
    with pytest.raises(AssertionError, match=rf"another {NAMES[0]} than crds/"), given.opened():
        pytest.fail("it must not be tested")
    shown = given.kubectl("get", "crd", NAMES[0], "-o", "jsonpath={.spec.names.categories}")
    assert shown == '["theirs"]'


def test_a_namespace_that_stays_fails_the_run(given, monkeypatch):
    monkeypatch.setattr("clusters.GOING_S", 1)
    given.open()
    given.kubectl("create", "namespace", name := new_namespace())
    with pytest.raises(AssertionError, match=name):
        given.close()
    given.kubectl("delete", "namespace", name)
