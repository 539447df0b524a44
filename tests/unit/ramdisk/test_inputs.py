"""A build is repeated when, and only when, something that goes into it changes."""

import hashlib
from pathlib import Path

import pytest
from billet_ramdisk.build import Extras, Repository, check_firmware, input_digests
from billet_ramdisk.inputs import (
    digest_files,
    digest_texts,
    parse_constraints,
    project_requirements,
)
from billet_ramdisk.steps import BuildError
from billet_ramdisk.wheels import find_pinned, pinned_closure

CONSTRAINTS = """\
# pinned
aiohttp==3.1 \\
    --hash=sha256:aa \\
    --hash=sha256:bb
Typing_Extensions==4.0 --hash=sha256:cc
"""


@pytest.fixture
def repository(tmp_path):
    code = tmp_path / "ramdisk/billet_ramdisk"
    for path in (code, tmp_path / "ramdisk/elements/e/root.d", tmp_path / "agent/src/a"):
        path.mkdir(parents=True)
    for name in ("debs", "kernel", "layers", "rootfs", "sources", "steps", "wheels"):
        (code / f"{name}.py").write_text(name)
    (tmp_path / "ramdisk/elements/e/root.d/10-a").write_text("#!/bin/sh\n")
    (tmp_path / "agent/src/a/x.py").write_text("1")
    (tmp_path / "agent/pyproject.toml").write_text("[project]\n")
    return Repository(tmp_path)


def test_an_agent_change_leaves_the_base_layer_alone(repository):
    before = input_digests(repository, ["p"], Extras())
    (repository.agent / "src/a/x.py").write_text("2")
    after = input_digests(repository, ["p"], Extras())
    assert after.base == before.base
    assert after.agent != before.agent


@pytest.mark.parametrize("change", ["hook", "mode", "new file", "element", "shared code"])
def test_a_change_of_the_base_changes_both(repository, change):
    before = input_digests(repository, [], Extras())
    hook = repository.ramdisk / "elements/e/root.d/10-a"
    elements = []
    if change == "hook":
        hook.write_text("#!/bin/bash\n")
    elif change == "mode":
        hook.chmod(0o755)
    elif change == "new file":
        hook.with_name("20-b").write_text("")
    elif change == "element":
        elements = ["more"]
    else:
        (repository.ramdisk / "billet_ramdisk/debs.py").write_text("other")
    after = input_digests(repository, [], Extras(tuple(elements)))
    assert after.base != before.base
    assert after.agent != before.agent


def test_pins_and_the_way_wheels_are_made_count_for_the_agent_only(repository):
    before = input_digests(repository, ["p==1"], Extras())
    assert input_digests(repository, ["p==2"], Extras()).base == before.base
    assert input_digests(repository, ["p==2"], Extras()).agent != before.agent
    (repository.ramdisk / "billet_ramdisk/wheels.py").write_text("other")
    after = input_digests(repository, ["p==1"], Extras())
    assert (after.base == before.base, after.agent == before.agent) == (True, False)


def test_byte_code_does_not_count(repository):
    before = input_digests(repository, [], Extras())
    cache = repository.agent / "src/a/__pycache__"
    cache.mkdir()
    (cache / "x.pyc").write_bytes(b"1")
    assert input_digests(repository, [], Extras()) == before


def test_text_borders_count():
    assert digest_texts("ab", "c") != digest_texts("a", "bc")


def test_names_count(tmp_path):
    (tmp_path / "a").write_text("x")
    before = digest_files([tmp_path], tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    assert digest_files([tmp_path], tmp_path) != before


def test_constraints_are_read_with_their_digests():
    found = parse_constraints(CONSTRAINTS)
    assert found["aiohttp"] == "aiohttp==3.1 --hash=sha256:aa --hash=sha256:bb"
    assert found["typing-extensions"].startswith("Typing_Extensions==4.0")


def test_requirements_of_a_project(tmp_path):
    pyproject = tmp_path / "pyproject.toml"
    pyproject.write_text('[project]\ndependencies = ["aiohttp>=3.11", "Typing_Extensions"]\n')
    assert project_requirements(pyproject) == ["aiohttp", "typing-extensions"]


def test_the_agents_real_closure_is_pinned_and_whole():
    top = Repository(Path(__file__).resolve().parents[3])
    pins = pinned_closure(top.agent / "pyproject.toml", top.constraints)
    names = [pin.split("==")[0] for pin in pins]
    assert {"aiohttp", "yarl", "multidict", "frozenlist", "attrs", "idna"} <= set(names)
    assert all("--hash=sha256:" in pin for pin in pins)
    assert "lightkube" not in names


def test_a_dependency_without_a_pin_stops_the_build(tmp_path):
    (tmp_path / "pyproject.toml").write_text('[project]\ndependencies = ["nowhere-pinned"]\n')
    (tmp_path / "constraints.txt").write_text(CONSTRAINTS)
    with pytest.raises(BuildError, match=r"nowhere-pinned.*not pinned"):
        pinned_closure(tmp_path / "pyproject.toml", tmp_path / "constraints.txt")


def test_wheels_are_used_again_only_with_a_pinned_digest(tmp_path):
    wheel = tmp_path / "typing_extensions-4.0-py3-none-any.whl"
    wheel.write_bytes(b"wheel")
    digest = hashlib.sha256(b"wheel").hexdigest()
    pin = f"Typing.Extensions==4.0 --hash=sha256:{'0' * 64} --hash=sha256:{digest}"
    assert find_pinned([pin], tmp_path) == [wheel]
    assert find_pinned([pin.replace("4.0", "4.1")], tmp_path) is None
    wheel.write_bytes(b"other")
    assert find_pinned([pin], tmp_path) is None


def test_firmware_makes_another_base(repository):
    plain = input_digests(repository, [], Extras())
    with_it = input_digests(repository, [], Extras(firmware=("firmware-bnx2x",)))
    assert with_it.base != plain.base
    assert input_digests(repository, [], Extras(firmware=("firmware-bnx2x",))) == with_it


@pytest.mark.parametrize("name", ["bnx2x", "firmware-", "firmware-x --force", "Firmware-x", "vim"])
def test_other_packages_are_no_firmware(name):
    with pytest.raises(BuildError, match="--element"):
        check_firmware(["firmware-qlogic", name])
    check_firmware(["firmware-qlogic", "firmware-b43legacy-installer"])
