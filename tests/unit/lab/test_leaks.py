import msgspec
import pytest

from billet_lab import leaks

EMPTY = leaks.Snapshot(
    namespaces=frozenset(),
    mounts=frozenset(),
    taps=frozenset(),
    loop_devices=frozenset(),
    run_dirs=frozenset(),
    processes=frozenset(),
)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"namespaces": frozenset({"billet-1"})}, "network namespace billet-1"),
        ({"mounts": frozenset({"/mnt"})}, "mount /mnt"),
        ({"taps": frozenset({"tap0"})}, "tap tap0"),
        ({"loop_devices": frozenset({"loop0 (/x)"})}, "loop device loop0 (/x)"),
        ({"run_dirs": frozenset({"billet-lab-1"})}, "directory /run/billet-lab-1"),
        ({"processes": frozenset({(7, 1, "dnsmasq -k")})}, "process 7: dnsmasq -k"),
    ],
)
def test_what_is_new_is_named_and_what_was_there_is_not(changes, words):
    after = msgspec.structs.replace(EMPTY, **changes)
    assert leaks.difference(EMPTY, after) == [words]
    assert leaks.difference(after, after) == []
    assert leaks.difference(after, EMPTY) == []


@pytest.mark.parametrize(
    ("argv", "ours"),
    [
        (["/usr/bin/qemu-system-x86_64", "-S"], True),
        (["/usr/sbin/dnsmasq"], True),
        (["/venv/bin/python3", "/venv/bin/billet", "up"], True),
        (["python", "-m", "billet_lab.machine", "job"], True),
        (["vim", "billet.py"], False),
        (["python", "-c", "print('billet')"], False),
        ([""], False),
    ],
)
def test_only_our_own_kind_of_process_counts(argv, ours):
    assert leaks._is_ours(argv) == ours


def test_a_snapshot_of_this_machine_is_one():
    before = leaks.snapshot()
    assert "/" in before.mounts
