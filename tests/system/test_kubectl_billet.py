"""`kubectl billet`: the real kubectl finds the plug-in, its flags and its completion."""

import asyncio
import json
import os
import shutil
import stat
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from billet_lab.processes import die_with_parent
from server_rig import eventually

TOP = Path(__file__).parents[2]
NAME = "metal3-node01"
REBOOT = "reboot.metal3.io"


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    """The programs that installing the server makes, by its pyproject.toml."""
    if not shutil.which("kubectl"):
        pytest.skip("no kubectl on the PATH")
    folder = tmp_path_factory.mktemp("bin")
    project = tomllib.loads((TOP / "server/pyproject.toml").read_text())["project"]
    for name, target in project["scripts"].items():
        module, _, function = target.partition(":")
        path = folder / name
        path.write_text(f"#!{sys.executable}\nfrom {module} import {function}\n{function}()\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return folder


@pytest.fixture
def kubectl(programs, user, tmp_path):
    """Run kubectl with the plug-in on the PATH; returns (exit code, output)."""
    (tmp_path / ".kube").mkdir()
    shutil.copy(user.server.kubeconfig, tmp_path / ".kube" / "config")

    async def run(*words, **more):
        path = f"{programs}{os.pathsep}{os.environ['PATH']}"
        environment = {k: v for k, v in os.environ.items() if k != "KUBECONFIG"}
        environment |= {"PATH": path, "HOME": str(tmp_path)} | more
        process = await asyncio.create_subprocess_exec(
            "kubectl", *words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, env=environment,
            preexec_fn=die_with_parent(),
        )  # fmt: skip
        try:
            out, _ = await asyncio.wait_for(process.communicate(), 60)
        except TimeoutError:
            process.kill()
            await process.wait()
            told = json.dumps((await user.host())["status"])
            raise AssertionError(f"kubectl {words} does not end; the host: {told}") from None
        return process.returncode, out.decode()

    return run


async def running(user, box):
    await user.register(box, online=True)
    await user.until_state("ready")
    await user.provision()
    await user.until_state("provisioned")
    await user.until(lambda host: host["status"].get("poweredOn") is True)
    await eventually(lambda: box.show()["powered_on"])


async def test_a_person_with_kubectl_reboots_and_switches_a_machine(user, machine, kubectl):
    box = machine()
    await running(user, box)
    code, text = await kubectl("billet", "status", "-n", user.namespace)
    assert (code, NAME in text) == (0, True), text
    boots = len(box.show()["boots"])
    code, text = await kubectl("billet", "-n", user.namespace, "reboot", NAME, "--mode=hard", "-w")
    assert code == 0, text
    assert f'metadata.annotations["{REBOOT}"] = {{"mode":"hard"}}' in text
    assert text.splitlines()[-1].endswith("done: rebooted, power on")
    assert len(box.show()["boots"]) == boots + 1
    code, text = await kubectl("billet", "power", f"{user.namespace}/{NAME}", "off", "--wait")
    assert code == 0, text
    assert not box.show()["powered_on"]
    code, text = await kubectl("billet", "power", NAME, "on", "-n", user.namespace, "--wait")
    assert code == 0, text
    code, text = await kubectl(
        "billet", "reboot", NAME, "-n", user.namespace, "--hold", "night", "--wait"
    )
    assert (code, box.show()["powered_on"]) == (0, False), text
    code, text = await kubectl(
        "billet", "reboot", NAME, "-n", user.namespace, "--release", "night", "--wait"
    )
    assert (code, box.show()["powered_on"]) == (0, True), text


async def test_pause_detach_retry_inspect_and_their_ends(user, machine, kubectl):
    box = machine()
    await user.register(box)
    await user.until_state("ready")
    await user.until_off()
    words = ("-n", user.namespace)
    code, text = await kubectl("billet", "inspect", NAME, "--wait", *words)
    assert code == 0, text
    assert len(box.jobs("inspect")) == 2
    for verb in ("detach", "attach", "retry"):
        code, text = await kubectl("billet", verb, NAME, "--wait", *words)
        assert code == 0, text
    await kubectl("billet", "pause", NAME, *words)
    code, text = await kubectl("billet", "power", NAME, "on", "--wait", *words)
    assert code == 1
    assert "the host is paused" in text
    code, text = await kubectl("billet", "unpause", NAME, *words)
    assert code == 0
    await user.until(lambda host: host["status"].get("poweredOn") is True)


async def test_a_problem_is_the_end_of_the_waiting(user, machine, kubectl):
    box = machine()
    await user.register(box, password="wrong")
    await user.until_problem("bmc-auth")
    code, text = await kubectl("billet", "retry", NAME, "--wait", "-n", user.namespace)
    assert code == 1, text
    assert "failed: bmc-auth: " in text


async def test_provision_and_deprovision(user, machine, kubectl, tmp_path):
    box = machine()
    await user.register(box)
    await user.until_state("ready")
    file = tmp_path / "user-data"
    file.write_text("#cloud-config\n")
    words = ("-n", user.namespace, "--wait", "-o", "json")
    image = "http://127.0.0.1:9/a.qcow2"
    code, text = await kubectl(
        "billet", "provision", NAME, "--image", image, "--checksum", "0" * 64,
        "--user-data", str(file), *words,
    )  # fmt: skip
    assert code == 0, text
    assert json.loads(text[text.index("\n[") :])[0]["result"] == "done"
    assert box.disk == image
    code, text = await kubectl("billet", "deprovision", NAME, *words, "--yes")
    assert code == 0, text
    assert box.disk == "empty"


async def test_kubectls_own_flags_and_context(user, machine, kubectl, tmp_path):
    config = user.server.kubeconfig
    code, text = await kubectl("billet", "status", "--kubeconfig", "/nowhere")
    assert (code, "there is no kubeconfig /nowhere" in text) == (2, True)
    code, text = await kubectl("billet", "--kubeconfig", str(config), "status", "--context", "no")
    assert (code, "Context 'no' not found" in text) == (2, True)
    # A list, the second file with another context: as kubectl reads it.
    other = tmp_path / "other"
    other.write_text("contexts: [{name: mine, context: {cluster: billet, user: billet}}]\n")
    code, text = await kubectl(
        "billet", "status", "--context", "mine", KUBECONFIG=f"{config}:{other}:/nowhere"
    )
    assert code == 0, text
    code, text = await kubectl("billet", "--help")
    assert (code, "Usage: kubectl billet" in text) == (0, True)


async def test_completion_through_kubectl(user, kubectl):
    await user.apply(
        {"apiVersion": "metal3.io/v1alpha1", "kind": "BareMetalHost",
         "metadata": {"name": "without-bmc"}, "spec": {"online": False}},
    )  # fmt: skip
    await user.until_state("unmanaged", "without-bmc")
    version = json.loads((await kubectl("version", "--client", "-o", "json"))[1])
    if int(version["clientVersion"]["minor"].rstrip("+")) < 26:
        pytest.skip("this kubectl completes no plug-ins")

    async def offered(*words):
        code, text = await kubectl("__complete", "billet", *words)
        assert code == 0, text
        lines = text.splitlines()
        noise = "Completion ended", "[Debug]"
        lines = [line for line in lines if not line.startswith(noise)]
        return {line.split("\t")[0] for line in lines}

    assert {"status", "reboot", "move"} <= await offered("")
    assert "reboot" in await offered("reb")
    assert "hard" in await offered("reboot", "--mode", "")
    assert "without-bmc" in await offered("reboot", "-n", user.namespace, "with")
    assert f"{user.namespace}/without-bmc" in await offered("status", f"{user.namespace}/")
    assert {":4"} == await offered("reboot", "-n", user.namespace, "no-such")
    assert "off" in await offered("power", "without-bmc", "o")
