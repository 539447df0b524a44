import yaml
from click.testing import CliRunner

from billet_lab import manifests, teardown
from billet_lab.cli import lab
from billet_lab.specs import LabState, MachineInfo

MACHINE = MachineInfo(
    name="node01",
    firmware="uefi",
    mac="00:c2:fc:3b:e1:01",
    uuid="u",
    bmc_address="ipmi://172.22.0.1:6230",
    username="admin",
    password="pass word",
    console_path="/nowhere/console.log",
    disk_paths=(),
    control_path="/nowhere/control.sock",
    pid=1,
)


def run(*argv):
    return CliRunner().invoke(lab, [str(word) for word in argv])


def a_lab(tmp_path):
    teardown.write_state(
        LabState(
            lab_id="t",
            namespace="billet-no-such",
            directory=str(tmp_path),
            run_dir=str(tmp_path / "run"),
            machines=(MACHINE,),
        )
    )
    return tmp_path


def test_help_has_examples():
    result = run("--help")
    assert result.exit_code == 0
    assert "billet lab up -n 2" in result.output


def test_commands_without_a_lab_say_how_to_get_one(tmp_path):
    for argv in (["list"], ["down"], ["console", "x"], ["power", "x", "on"], ["fault", "x"]):
        result = run(*argv, "--dir", tmp_path)
        assert result.exit_code == 1, argv
        assert "there is no lab in" in result.output
        assert "billet lab up" in result.output


def test_unknown_machines_are_answered_with_the_known_ones(tmp_path):
    result = run("power", "node02", "on", "--dir", a_lab(tmp_path))
    assert result.exit_code == 1
    assert "there are node01" in result.output


def test_unfit_options_are_usage_errors(tmp_path):
    for argv, words in (
        (["up", "--disk", "8G:floppy"], "no disk bus"),
        (["up", "--memory", "much"], "not a size"),
        (["up", "-n", "0"], "-n"),
    ):
        result = run(*argv, "--dir", tmp_path)
        assert result.exit_code == 2, argv
        assert words in result.output
    result = run("fault", "node01", "bmc_deaf=on", "--dir", a_lab(tmp_path))
    assert result.exit_code == 2
    assert "there is no fault 'bmc_deaf'" in result.output


def test_a_dead_machine_is_listed_as_unknown(tmp_path):
    result = run("list", "--dir", a_lab(tmp_path))
    assert result.exit_code == 0
    assert "unknown" in result.output
    result = run("list", "-o", "json", "--dir", tmp_path)
    (entry,) = yaml.safe_load(result.output)
    assert entry["name"] == "node01"
    assert entry["status"] is None


def test_a_torn_state_file_is_told(tmp_path):
    teardown.state_path(tmp_path).write_text("{")
    result = run("list", "--dir", tmp_path)
    assert result.exit_code == 1
    assert "cannot be read" in result.output


def test_manifests_have_the_shape_of_metal3(tmp_path):
    namespace, secret, host = yaml.safe_load_all(manifests.render_hosts([MACHINE], "metal3"))
    assert namespace["kind"] == "Namespace"
    assert secret["data"] == {"username": "YWRtaW4=", "password": "cGFzcyB3b3Jk"}
    assert host["spec"]["bmc"] == {
        "address": "ipmi://172.22.0.1:6230",
        "credentialsName": secret["metadata"]["name"],
    }
    assert host["spec"]["bootMACAddress"] == MACHINE.mac
    assert host["spec"]["bootMode"] == "UEFI"
    assert host["metadata"]["namespace"] == secret["metadata"]["namespace"] == "metal3"
