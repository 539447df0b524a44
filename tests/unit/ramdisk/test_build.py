"""Steps, layers and the agent's installation, on small trees."""

import os
import shutil
import subprocess

import pytest
from billet_ramdisk import layers
from billet_ramdisk.build import collect_layer, read_manifest
from billet_ramdisk.dib import progress_line
from billet_ramdisk.steps import BuildError, Steps


def test_a_failing_step_tells_the_end_of_its_log(tmp_path):
    steps = Steps("t", tmp_path / "log")
    steps.run(["sh", "-c", "echo fine"])
    with pytest.raises(BuildError) as caught:
        steps.run(["sh", "-c", "echo the reason >&2; exit 3"])
    text = str(caught.value)
    assert "status 3" in text
    assert "the reason" in text
    assert str(tmp_path / "log") in text
    assert "fine" in (tmp_path / "log").read_text()


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        (
            "dib-run-parts Running /t/dib_build.x/hooks/root.d/10-packages",
            "diskimage-builder: root 10-packages",
        ),
        ("[root]   3.1 s  root: unpacked", "root: unpacked"),
        ("Setting up libc6 (2.36) ...", None),
        ("dib-run-parts 10-packages completed", None),
    ],
)
def test_what_a_person_sees_of_diskimage_builder(line, shown):
    assert progress_line(line) == shown


def test_layers_join_to_what_the_kernel_unpacks_in_turn(tmp_path):
    parts = []
    for number in (1, 2):
        tree = tmp_path / f"tree{number}"
        (tree / "dir").mkdir(parents=True)
        (tree / "dir" / f"file{number}").write_text("x" * number)
        (tree / "link").symlink_to(f"dir/file{number}")
        layers.pack(tree, tmp_path / f"{number}.cpio")
        layers.compress(tmp_path / f"{number}.cpio", tmp_path / f"{number}.zst")
        parts.append(tmp_path / f"{number}.zst")
    layers.join(parts, tmp_path / "initramfs")
    plain = subprocess.run(
        ["zstd", "-dc", str(tmp_path / "initramfs")], capture_output=True, check=True
    ).stdout
    assert plain.count(b"TRAILER!!!") == 2
    out = tmp_path / "out"
    out.mkdir()
    archives = [tmp_path / "1.cpio", tmp_path / "2.cpio"]
    assert plain == b"".join(path.read_bytes() for path in archives)
    for path in archives:
        subprocess.run(["cpio", "-idu", "--quiet"], cwd=out, input=path.read_bytes(), check=True)
    assert sorted(os.listdir(out / "dir")) == ["file1", "file2"]
    assert (out / "link").readlink().name == "file2"


def test_equal_trees_pack_to_equal_archives(tmp_path):
    tree = tmp_path / "tree"
    tree.mkdir()
    for name in ("b", "a", "c d"):
        (tree / name).write_text(name)
    layers.pack(tree, tmp_path / "one")
    copy = tmp_path / "copy"
    shutil.copytree(tree, copy)
    shutil.copystat(tree, copy)
    layers.pack(copy, tmp_path / "two")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_the_agents_layer_holds_its_files_and_byte_code_only(tmp_path):
    root = tmp_path / "root"
    for name in (
        "usr/local/lib/python3.11/dist-packages/a/__init__.py",
        "usr/local/bin/billet-agent",
        "usr/lib/python3.11/json/__init__.py",
        "usr/lib/python3.11/json/__pycache__/__init__.cpython-311.pyc",
        "usr/bin/python3.11",
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    stage = tmp_path / "stage"
    collect_layer(root, stage)
    found = sorted(str(p.relative_to(stage)) for p in stage.rglob("*") if p.is_file())
    assert found == [
        "usr/lib/python3.11/json/__pycache__/__init__.cpython-311.pyc",
        "usr/local/bin/billet-agent",
        "usr/local/lib/python3.11/dist-packages/a/__init__.py",
    ]


@pytest.mark.parametrize("text", ["", "[1]", "{broken"])
def test_a_damaged_manifest_means_build_again(tmp_path, text):
    (tmp_path / "manifest.json").write_text(text)
    assert read_manifest(tmp_path / "manifest.json") == {}
    assert read_manifest(tmp_path / "none.json") == {}
