"""`billet webhook-manifest`, and the settings of the webhook."""

import base64
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from billet_server import pki, settings
from billet_server.cli.root import billet
from billet_server.errors import ConfigError


@pytest.fixture
def authority(tmp_path):
    return pki.ensure_authority(tmp_path / "state" / "pki")


def run(*args):
    return CliRunner().invoke(billet, ["webhook-manifest", *map(str, args)])


def test_it_points_at_the_service_with_our_ca(authority, tmp_path):
    done = run("--state-dir", tmp_path / "state")
    assert done.exit_code == 0
    found = yaml.safe_load(done.output)
    assert found["kind"] == "ValidatingWebhookConfiguration"
    (hook,) = found["webhooks"]
    client = hook["clientConfig"]
    assert base64.b64decode(client["caBundle"]) == authority.cert_pem
    assert client["service"] == {
        "namespace": "billet-system",
        "name": "billet-webhook",
        "path": "/validate-metal3-io-v1alpha1-baremetalhost",
        "port": 443,
    }
    assert hook["rules"][0]["resources"] == ["baremetalhosts"], "not their status"
    assert hook["rules"][0]["operations"] == ["CREATE", "UPDATE"]
    assert (hook["failurePolicy"], hook["sideEffects"]) == ("Fail", "None")


def test_it_points_at_a_server_outside_the_cluster(authority, tmp_path):
    done = run("--url", "https://172.22.0.1:9443/", "--ca", authority.cert_path)
    (hook,) = yaml.safe_load(done.output)["webhooks"]
    assert hook["clientConfig"]["url"] == (
        "https://172.22.0.1:9443/validate-metal3-io-v1alpha1-baremetalhost"
    )
    assert "service" not in hook["clientConfig"]


def test_the_ca_can_be_left_to_another(tmp_path):
    done = run("--no-ca", "--service", "metal/hook", "--port", 9443)
    (hook,) = yaml.safe_load(done.output)["webhooks"]
    assert list(hook["clientConfig"]) == ["service"]
    assert hook["clientConfig"]["service"]["name"] == "hook"


def test_all_faults_come_at_once(tmp_path):
    (tmp_path / "ca.txt").write_text("no certificate")
    done = run("--service", "a", "--url", "http://h", "--port", 0, "--ca", tmp_path / "ca.txt")
    assert isinstance(done.exception, ConfigError)
    assert len(done.exception.faults) == 4
    done = run("--state-dir", tmp_path / "none")
    assert "start billet up once, or name the CA with --ca" in str(done.exception)


# settings


def test_the_webhook_is_off_by_default():
    assert settings.check(settings.Inputs()).webhook is None


def test_settings_of_the_webhook(tmp_path):
    cert, key = tmp_path / "tls.crt", tmp_path / "tls.key"
    for path in (cert, key):
        path.write_text("")
    made = settings.check(
        settings.Inputs(webhook_port=9443, webhook_cert=str(cert), webhook_key=str(key))
    )
    assert made.webhook == settings.Webhook("0.0.0.0", 9443, cert, key, ())
    made = settings.check(
        settings.Inputs(webhook_port=1, webhook_host="::1", webhook_names=("a.svc", "fd00::7"))
    )
    assert made.webhook == settings.Webhook("::1", 1, None, None, ("a.svc", "fd00::7"))


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({"webhook_port": 70000}, "--webhook-port 70000 is not a port"),
        ({"webhook_port": 1, "webhook_host": "here"}, "--webhook-host 'here' is not an IP address"),
        ({"webhook_port": 1, "webhook_cert": __file__}, "go together"),
        ({"webhook_port": 1, "webhook_cert": __file__, "webhook_key": "/none"},
         "--webhook-key /none is not a file"),
        ({"webhook_cert": __file__}, "need a --webhook-port"),
        ({"webhook_port": 1, "webhook_names": ("a b",)}, "'a b' is neither a DNS name nor"),
        ({"webhook_port": 1, "webhook_names": ("a",), "webhook_cert": __file__,
          "webhook_key": __file__}, "is for a certificate of Billet's own CA"),
    ],
)  # fmt: skip
def test_wrong_settings_are_named(inputs, words):
    with pytest.raises(ConfigError) as caught:
        settings.check(settings.Inputs(**inputs))
    (fault,) = caught.value.faults
    assert words in fault
    assert Path(__file__).is_file()
