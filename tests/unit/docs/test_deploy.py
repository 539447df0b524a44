"""deploy/ against the code: rights, settings, probes, and the shape that a cluster expects."""

import ast
import re
import shutil
import subprocess
from pathlib import Path

import click
import pytest
import yaml

from billet_server import ports
from billet_server.admission.manifest import render_configuration
from billet_server.admission.server import PATH
from billet_server.cli.up import up
from billet_server.engine.identity import SECRET_NAME
from billet_server.engine.leader import LEASE_NAME
from billet_server.settings import Inputs, check

TOP = Path(__file__).resolve().parents[3]
DEPLOY = TOP / "deploy"
SERVER = TOP / "server/src/billet_server"
VERBS = {"replace": "update"}
KINDS = {name: kind for name, kind in vars(ports).items() if isinstance(kind, ports.Kind)}


def documents(name):
    return list(yaml.safe_load_all((DEPLOY / name).read_text()))


def everything():
    found = {}
    for name in documents("kustomization.yaml")[0]["resources"]:
        for each in documents(name):
            found[each["kind"], each["metadata"]["name"]] = each
    return found


ALL = everything()
DEPLOYMENT = ALL["Deployment", "billet"]
POD = DEPLOYMENT["spec"]["template"]["spec"]
(CONTAINER,) = POD["containers"]
ENV = dict(
    line.split("=", 1)
    for line in (DEPLOY / "billet.env").read_text().splitlines()
    if line and not line.startswith("#")
)


# rights


def calls_of(path):
    """(verb, kind, subresource) of each call of the API port in a file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call) or not node.args:
            continue
        words = [each.id for each in node.args if isinstance(each, ast.Name) and each.id in KINDS]
        if not words:
            continue
        kind = KINDS[words[0]]
        if isinstance(node.func, ast.Name) and node.func.id == "Informer":
            yield from (("list", kind, ""), ("watch", kind, ""))
        elif isinstance(node.func, ast.Attribute) and node.func.attr in dir(ports.KubeApi):
            part = [k.value.value for k in node.keywords if k.arg == "subresource"]
            yield VERBS.get(node.func.attr, node.func.attr), kind, part[0] if part else ""


def needed():
    found = set()
    for path in (*SERVER.glob("engine/*.py"), SERVER / "app.py"):
        for verb, kind, part in calls_of(path):
            if kind is ports.NAMESPACE:
                continue  # in a pod it is there, and not being allowed to look is no fault
            plural = kind.plural + (f"/{part}" if part else "")
            found.add((kind.group, plural, verb))
    return found


def granted(rules):
    return {
        (group, resource, verb)
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def test_the_code_has_every_right_that_it_uses_and_no_other():
    everywhere, inside = ALL["ClusterRole", "billet"], ALL["Role", "billet"]
    assert granted(everywhere["rules"]) | granted(inside["rules"]) == needed()
    assert len(needed()) > 15


def test_what_only_the_lease_needs_is_granted_only_beside_it():
    everywhere, inside = ALL["ClusterRole", "billet"], ALL["Role", "billet"]
    assert {resource for _, resource, _ in granted(inside["rules"])} == {"leases", "secrets"}
    assert granted(everywhere["rules"]) & granted(inside["rules"]) == set()
    assert not any(verb in ("get", "create") and resource == "secrets"
                   for _, resource, verb in granted(everywhere["rules"]))  # fmt: skip
    for rule in inside["rules"]:
        named = {"leases": [LEASE_NAME], "secrets": [SECRET_NAME]}[rule["resources"][0]]
        # A create cannot be limited by name: the name is not known to whoever asks RBAC.
        assert rule.get("resourceNames") == (None if rule["verbs"] == ["create"] else named)
    for rule in everywhere["rules"]:
        assert "*" not in (*rule["apiGroups"], *rule["resources"], *rule["verbs"])


@pytest.mark.parametrize("kind", ["ClusterRole", "Role"])
def test_roles_are_bound_to_the_pods_account(kind):
    binding = ALL[f"{kind}Binding", "billet"]
    assert binding["roleRef"] == {
        "apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": "billet",
    }  # fmt: skip
    (subject,) = binding["subjects"]
    assert ("ServiceAccount", subject["name"]) in ALL
    assert subject["namespace"] == ALL["Namespace", "billet-system"]["metadata"]["name"]
    assert POD["serviceAccountName"] == subject["name"]


# settings


def parsed(monkeypatch):
    for name, value in ENV.items():
        monkeypatch.setenv(name, value)
    # A command remembers the help option of its first context: it must be the real one.
    with click.Context(up, info_name="up", help_option_names=["-h", "--help"]) as context:
        up.parse_args(context, [])
        return dict(context.params)


def test_every_variable_is_a_setting_and_all_of_them_are_good(monkeypatch):
    options = {str(param.envvar) for param in up.params}
    assert set(ENV) | {each["name"] for each in CONTAINER["env"]} <= options
    given = parsed(monkeypatch)
    given.pop("verbose")
    inputs = Inputs(in_cluster=True, **{k: v for k, v in given.items() if v is not None})
    settings = check(inputs, "172.22.0.2/24")
    assert settings.agent_addresses == ("172.22.0.2:8443", "172.22.0.1:8443")
    assert settings.webhook is not None
    assert settings.dhcp == "dhcp"
    mounts = {each["mountPath"] for each in CONTAINER["volumeMounts"]}
    assert {str(settings.state_dir), "/run/billet", "/tmp"} == mounts


def test_every_option_has_a_variable_of_its_own_name():
    for param in up.params:
        option = max(param.opts, key=len)
        assert param.envvar == "BILLET_UP_" + option[2:].replace("-", "_").upper()


# the Deployment and what stands around it


def test_names_and_labels_fit_together():
    labels = DEPLOYMENT["spec"]["template"]["metadata"]["labels"]
    for selector in (
        DEPLOYMENT["spec"]["selector"]["matchLabels"],
        ALL["Service", "billet-webhook"]["spec"]["selector"],
        ALL["PodDisruptionBudget", "billet"]["spec"]["selector"]["matchLabels"],
    ):
        assert selector.items() <= labels.items()
    (port,) = ALL["Service", "billet-webhook"]["spec"]["ports"]
    ports_by_name = {each["name"]: each["containerPort"] for each in CONTAINER["ports"]}
    assert ports_by_name[port["targetPort"]] == int(ENV["BILLET_UP_WEBHOOK_PORT"])
    assert ports_by_name["boot"] == Inputs().http_port
    assert ports_by_name["agents"] == Inputs().agent_port
    volumes = {each["name"] for each in POD["volumes"]}
    assert volumes == {each["name"] for each in CONTAINER["volumeMounts"]}


def test_replicas_leave_room_for_one_another():
    assert DEPLOYMENT["spec"]["replicas"] >= 2
    assert (
        ALL["PodDisruptionBudget", "billet"]["spec"]["minAvailable"]
        < (DEPLOYMENT["spec"]["replicas"])
    )
    # With the node's network two of them on one node, old and new, would want the same ports.
    assert POD["hostNetwork"]
    assert DEPLOYMENT["spec"]["strategy"]["rollingUpdate"]["maxSurge"] == 0
    (rule,) = POD["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert rule["topologyKey"] == "kubernetes.io/hostname"
    assert not POD["enableServiceLinks"], "BILLET_... variables of Services would be settings"


def test_probes_ask_what_is_served_where_it_is():
    routes = (SERVER / "telemetry/server.py").read_text()
    for name in ("startupProbe", "livenessProbe", "readinessProbe"):
        get = CONTAINER[name]["httpGet"]
        assert f'add_get("{get["path"]}"' in routes
        assert str(get["port"]) == ENV["BILLET_UP_METRICS_PORT"]
        assert get["host"] == Inputs().metrics_host
    assert CONTAINER["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert CONTAINER["livenessProbe"]["httpGet"]["path"] == "/healthz"


def test_it_has_no_powers_that_the_unit_has_not():
    security = CONTAINER["securityContext"]
    assert security["capabilities"]["drop"] == ["ALL"]
    assert security["readOnlyRootFilesystem"]
    assert not security["allowPrivilegeEscalation"]
    unit = (DEPLOY / "billet.service").read_text()
    (line,) = re.findall(r"^CapabilityBoundingSet=(.*)$", unit, re.MULTILINE)
    assert [f"CAP_{each}" for each in security["capabilities"]["add"]] == line.split()
    assert set(CONTAINER["resources"]) == {"requests", "limits"}


def test_the_webhook_is_the_one_that_is_served():
    (written,) = documents("webhook/webhook.yaml")
    service = ("billet-system", "billet-webhook")
    assert written == render_configuration(ca_pem=b"", service=service)
    assert written["webhooks"][0]["clientConfig"]["service"]["path"] == PATH
    assert ENV["BILLET_UP_WEBHOOK_NAME"] == "billet-webhook.billet-system.svc"
    assert ("Service", "billet-webhook") in ALL


@pytest.mark.parametrize("folder", ["", "webhook"])
def test_kustomize_builds_it(folder):
    if shutil.which("kubectl") is None:
        pytest.skip("skipped: no kubectl")
    command = ["kubectl", "kustomize", DEPLOY / folder]
    built = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    made = [each for each in yaml.safe_load_all(built.stdout) if each]
    if folder:
        assert [each["kind"] for each in made] == ["ValidatingWebhookConfiguration"]
        return
    kinds = {each["kind"] for each in made}
    assert kinds == {kind for kind, _ in ALL} | {"ConfigMap"}
    cluster_wide = {"Namespace", "ClusterRole", "ClusterRoleBinding"}
    for each in made:
        space = each["metadata"].get("namespace")
        assert space == (None if each["kind"] in cluster_wide else "billet-system"), each
    (config,) = [each for each in made if each["kind"] == "ConfigMap"]
    assert config["data"] == ENV
    (deployment,) = [each for each in made if each["kind"] == "Deployment"]
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    (source,) = container["envFrom"]
    assert source["configMapRef"]["name"] == config["metadata"]["name"], "changes roll it out"


# one machine, one image


def test_systemd_takes_the_unit(tmp_path):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("skipped: no systemd-analyze")
    text = (DEPLOY / "billet.service").read_text()
    (command,) = re.findall(r"^ExecStart=(.*)$", text, re.MULTILINE)
    assert command.startswith("/opt/billet/bin/billet up ")
    unit = tmp_path / "billet.service"
    unit.write_text(text.replace("/opt/billet/bin/billet", "/bin/true"))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", unit],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    said = [line for line in done.stderr.splitlines() if "billet.service" in line]
    assert not said, said
    assert done.returncode == 0, done.stderr


def instructions():
    text = (DEPLOY / "Containerfile").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [tuple(line.split(maxsplit=1)) for line in lines]


def test_the_image_is_made_of_what_is_there():
    stages = []
    for word, rest in instructions():
        if word == "FROM":
            assert re.fullmatch(r"[a-z]+:[a-z0-9.-]+( AS [a-z]+)?", rest), "a bare image name"
            stages += re.findall(r" AS (\w+)", rest)
        if word == "COPY":
            *sources, _ = rest.split()
            if sources[0].startswith("--from="):
                assert sources.pop(0) == f"--from={stages[0]}"
                continue
            for source in sources:
                assert source == "build/ramdisk" or (TOP / source).exists(), source
    text = (DEPLOY / "Containerfile").read_text()
    assert "--require-hashes" in text
    assert "://" not in text
    for package in ("dnsmasq-base", "ipxe", "util-linux"):
        assert package in text, "boot.ground asks for it"
    assert ("ENTRYPOINT", '["billet"]') in instructions()
