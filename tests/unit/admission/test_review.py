"""AdmissionReviews in and out."""

import copy
import json

import pytest

from billet_server.admission.review import BadReviewError, answer_review

KIND = {"group": "metal3.io", "version": "v1alpha1", "kind": "BareMetalHost"}
HOST = {
    "apiVersion": "metal3.io/v1alpha1",
    "kind": "BareMetalHost",
    "metadata": {"name": "node01", "namespace": "metal3"},
    "spec": {
        "online": True,
        "bmc": {"address": "ipmi://172.22.0.2", "credentialsName": "c"},
        "bootMACAddress": "00:c2:fc:3b:e1:01",
    },
}


def host(**spec):
    return {**copy.deepcopy(HOST), "spec": {**HOST["spec"], **spec}}


def review(new=None, old=None, operation="CREATE", **request):
    request = {
        "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
        "kind": KIND,
        "resource": {"group": "metal3.io", "version": "v1alpha1", "resource": "baremetalhosts"},
        "name": "node01",
        "namespace": "metal3",
        "operation": operation,
        "object": new,
        "oldObject": old,
        "dryRun": False,
        **request,
    }
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}


def ask(*args, **request):
    answer = json.loads(answer_review(json.dumps(review(*args, **request)).encode()).body)
    assert (answer["apiVersion"], answer["kind"]) == ("admission.k8s.io/v1", "AdmissionReview")
    response = answer["response"]
    assert response["uid"] == request.get("uid", "705ab4f5-6393-11e8-b7cc-42010a800002")
    return response


def test_a_good_host_is_allowed_and_nothing_else_is_said():
    assert set(ask(host())) == {"uid", "allowed"}
    assert ask(host(), uid="another")["allowed"] is True


def test_all_faults_come_in_one_message_and_as_causes():
    response = ask(
        host(bmc={"address": "snmp://h", "credentialsName": ""}, image={"url": "ftp://h/x"})
    )
    assert response["allowed"] is False
    status = response["status"]
    assert (status["code"], status["reason"], status["status"]) == (422, "Invalid", "Failure")
    assert status["message"].startswith('BareMetalHost.metal3.io "node01" is invalid: [spec.bmc.')
    details = status["details"]
    assert (details["name"], details["group"], details["kind"]) == (
        "node01", "metal3.io", "BareMetalHost")  # fmt: skip
    causes = details["causes"]
    assert [(cause["reason"], cause["field"]) for cause in causes] == [
        ("FieldValueInvalid", "spec.bmc.address"),
        ("FieldValueRequired", "spec.bmc.credentialsName"),
        ("FieldValueRequired", "spec.image.checksum"),
        ("FieldValueInvalid", "spec.image.url"),
    ]
    for cause in causes:
        assert f"{cause['field']}: {cause['message']}" in status["message"]
    assert "unknown BMC scheme snmp://" in causes[0]["message"]


def test_one_fault_stands_without_brackets():
    message = ask(host(image={"url": "http://h/x"}))["status"]["message"]
    assert "is invalid: spec.image.checksum: Required value: the image" in message  # fmt: skip


def test_every_type_of_fault_has_a_reason():
    wrong = host(
        online=False,
        disablePowerOff=True,
        image={"url": "http://h/x", "checksum": "0" * 32, "format": "vhdx"},
        networkInterfaces=[{"name": "a"}, {"name": "a"}],
        bmc={"address": "", "credentialsName": "c"},
        bootMACAddress="x",
    )
    causes = ask(wrong)["status"]["details"]["causes"]
    assert {cause["reason"] for cause in causes} == {
        "FieldValueForbidden", "FieldValueNotSupported", "FieldValueDuplicate",
        "FieldValueRequired", "FieldValueInvalid",
    }  # fmt: skip


def test_an_update_is_held_to_what_it_changes():
    old = host(image={"url": "ftp://h/x"})
    assert ask(host(image={"url": "ftp://h/x"}, online=False), old, "UPDATE")["allowed"]
    refused = ask(host(bootMACAddress="00:c2:fc:3b:e1:02"), host(), "UPDATE")
    assert "may not change once set" in refused["status"]["message"]


def test_warnings_are_told_with_and_without_faults():
    wish = {"networkInterfaces": [{"name": "eno1"}]}
    allowed = ask(host(**wish))
    assert allowed["allowed"]
    assert allowed["warnings"] == [
        "spec.networkInterfaces: kept and not acted on; Billet configures no switches"
    ]
    refused = ask(host(**wish, image={"url": "x"}))
    assert not refused["allowed"]
    assert refused["warnings"] == allowed["warnings"]
    assert "warnings" not in ask(host(**wish), host(**wish), "UPDATE")
    (cut,) = ask(host(architecture="x" * 1000))["warnings"]
    assert len(cut) <= 250


@pytest.mark.parametrize("operation", ["DELETE", "CONNECT"])
def test_a_deletion_is_never_refused(operation):
    assert ask(None, host(image={"url": "x"}), operation) == {
        "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
        "allowed": True,
    }


def test_a_status_is_not_checked():
    broken = host(image={"url": "x"})
    assert ask(broken, host(), "UPDATE", subResource="status")["allowed"]
    assert not ask(broken, host(), "UPDATE", subResource="")["allowed"]


def test_the_namespace_may_come_with_the_request_only():
    new = host(userData={"name": "u", "namespace": "metal3"})
    del new["metadata"]["namespace"]
    assert ask(new)["allowed"]
    assert not ask(new, namespace="other")["allowed"]


def test_a_generated_name_is_not_known_yet():
    new = host()
    del new["metadata"]["name"]
    new["metadata"]["generateName"] = "node-"
    assert ask(new, name="")["allowed"]


@pytest.mark.parametrize(
    "kind",
    [{**KIND, "kind": "HardwareData"}, {**KIND, "version": "v1beta1"}, {}, None, [],
     {"group": "", "version": "v1", "kind": "Pod"}],
)  # fmt: skip
def test_another_kind_passes_and_the_asker_is_told(kind):
    response = ask({"spec": "anything"}, kind=kind)
    assert response["allowed"] is True
    (warning,) = response["warnings"]
    assert "checks metal3.io/v1alpha1 BareMetalHost only" in warning


BAD = [
    (b"", "not JSON"),
    (b"\xff", "not JSON"),
    (b"[" * 100_000, "not JSON"),
    (b"[]", "must be an AdmissionReview"),
    (b'{"kind": "Status"}', "must be an AdmissionReview"),
    (b'{"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1beta1"}',
     "'admission.k8s.io/v1beta1': only admission.k8s.io/v1 is answered"),
    (b'{"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1"}', "has no request"),
    (json.dumps(review(host(), uid=7)).encode(), "request.uid must be a text"),
    (json.dumps(review(host(), uid="")).encode(), "request.uid must be a text"),
    (json.dumps(review(None)).encode(), "request.object must be the object of the CREATE"),
    (json.dumps(review([])).encode(), "request.object must be"),
    (json.dumps(review(host(), None, "UPDATE")).encode(), "request.oldObject must be"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "words"), BAD)
def test_what_is_no_review_is_told_why(body, words):
    with pytest.raises(BadReviewError) as caught:
        answer_review(body)
    assert words in str(caught.value)
    assert len(str(caught.value)) < 500


def test_what_goes_to_the_log_names_host_and_faults():
    body = json.dumps(review(host(image={"url": "x"}))).encode()
    answer = answer_review(body)
    assert answer.what == "CREATE metal3/node01"
    assert "spec.image.checksum" in answer.refusal
    assert answer_review(json.dumps(review(host())).encode()).refusal == ""
