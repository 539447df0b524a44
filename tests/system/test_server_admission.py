"""What the embedded API refuses at the door; a cluster without our webhook lets it in."""

import pytest

from billet_lab.kubectl import KubectlError
from server_rig import IMAGE


async def test_unknown_scheme_is_refused_by_the_api(user, machine):
    box = machine()
    credentials, host = user.manifests(box)
    host["spec"]["bmc"]["address"] = "ipmy://127.0.0.1:6230"
    with pytest.raises(KubectlError, match=r"unknown BMC scheme ipmy://; supported are ipmi://"):
        await user.apply(credentials, host)
    with pytest.raises(KubectlError, match="not found"):
        await user.host()


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("bootMACAddress", "00:c2:fc:3b:e1", "should match"),
        ("image", {"url": "file:///etc/passwd", "checksum": "0" * 32}, "http:// and https://"),
        ("image", {"url": "http:///x.qcow2", "checksum": "0" * 32}, "the URL has no host"),
        ("image", {"url": IMAGE}, "checksum"),
        ("image", {"url": IMAGE, "checksum": "12345"}, "hex digits"),
        ("userData", {"name": "x", "namespace": "kube-system"}, "namespace"),
        ("online", "perhaps", "boolean"),
    ],
)
async def test_bad_fields_are_refused_by_the_api(user, machine, field, value, words):
    credentials, host = user.manifests(machine())
    host["spec"][field] = value
    with pytest.raises(KubectlError) as caught:
        await user.apply(credentials, host)
    assert words in str(caught.value)
    assert field in str(caught.value)


async def test_the_bmc_address_of_a_host_changes_only_while_it_is_detached(user, machine):
    box = machine()
    await user.register(box)
    await user.until_state("ready")
    other = {"bmc": {"address": box.address.replace("127.0.0.1", "localhost")}}
    with pytest.raises(KubectlError, match=r"spec\.bmc\.address"):
        await user.patch(other)
    await user.annotate("baremetalhost.metal3.io/detached=")
    await user.until(lambda host: host["status"]["operationalStatus"] == "detached")
    await user.patch(other)
    await user.annotate("baremetalhost.metal3.io/detached-")
    await user.until(lambda host: host["status"]["operationalStatus"] == "OK")
    with pytest.raises(KubectlError, match=r"spec\.bmc\.address"):
        await user.patch({"bmc": {"address": box.address}})
