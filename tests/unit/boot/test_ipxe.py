import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billet_server.boot import ipxe
from billet_server.core.bootplan import DiskBoot, RamdiskBoot
from billet_server.core.terms import HostKey

MAC = "52:54:00:ab:cd:ef"
COMMANDS = {
    "#!ipxe", "echo", "iseq", "sanboot", "exit", "set", "imgfree", "kernel", "initrd", "boot",
    "sleep", "inc", "chain", ":leave", ":fetch", ":failed", ":ask",
}  # fmt: skip


def plan(*arguments: str, host: str = "node-1", nonce: str = "n0nce") -> RamdiskBoot:
    return RamdiskBoot(HostKey("metal", host), nonce, arguments)


def words(script: str) -> list[str]:
    """The first word of each line: what iPXE would execute."""
    assert script.endswith("\n")
    assert re.fullmatch(r"[ -~\n]*", script), "plain ASCII lines only"
    return [line.split()[0] for line in script.splitlines()]


def test_the_ramdisk_script_boots_this_hosts_kernel_line():
    script = ipxe.render_ramdisk(plan("console=ttyS0,115200", "billet.token=b1.A.B"), MAC)
    assert set(words(script)) <= COMMANDS
    kernel = next(line for line in script.splitlines() if line.startswith("kernel "))
    assert kernel == (
        "kernel /boot/n0nce/vmlinuz?mac=52-54-00-ab-cd-ef initrd=initramfs "
        "console=ttyS0,115200 billet.token=b1.A.B BOOTIF=01-52-54-00-ab-cd-ef || goto failed"
    )
    assert (
        "initrd --name initramfs /boot/n0nce/initramfs?mac=52-54-00-ab-cd-ef || goto failed\n"
        in script
    )
    assert script.index("\nkernel ") < script.index("\ninitrd ") < script.index("\nboot ||")
    assert script.endswith("imgfree\nexit 1\n"), "UEFI goes on only after an error"


def test_every_label_that_is_jumped_to_exists():
    for script in (
        ipxe.render_bootstrap(),
        ipxe.render_disk(DiskBoot("it is so")),
        ipxe.render_ramdisk(plan(), MAC),
    ):
        assert set(words(script)) <= COMMANDS
        for label in re.findall(r"goto (\w+)", script):
            assert f"\n:{label}\n" in script


@pytest.mark.parametrize(
    "argument",
    [
        "a\nshell",
        "a\rshell",
        "a\x00b",
        "a b",
        "a||shell",
        "a&&shell",
        "x=${password}",
        "x=$(reboot)",
        "#",
        "x='y'",
        'x="y"',
        "",
        "x=é",
        "x=1\n",
    ],
)
def test_an_argument_outside_the_set_is_refused(argument):
    with pytest.raises(ValueError, match="outside the allowed set"):
        ipxe.render_ramdisk(plan(argument), MAC)


@pytest.mark.parametrize("nonce", ["", "a/b", "../x", "a b", "a\nb", "${x}", "a?b", "a" * 65])
def test_a_nonce_outside_the_set_is_refused(nonce):
    with pytest.raises(ValueError, match="nonce"):
        ipxe.render_ramdisk(plan(nonce=nonce), MAC)


def test_a_command_line_that_linux_would_cut_is_refused():
    with pytest.raises(ValueError, match="2047"):
        ipxe.render_ramdisk(plan("x=" + "a" * 2040), MAC)


HOSTILE = [
    "x\nshell\n",
    "x || shell",
    "x && reboot",
    "${secret}",
    "x # rest",
    "\r\n:leave\nshell",
    "\u202eevil",
    "-n --help",
    "a" * 5000,
    "'\"\\`;<>|",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_reason_or_name_stays_words_on_its_line(text):
    check_disk_script(text)
    check_ramdisk_script(text)


@given(st.text())
def test_any_reason_or_name_stays_words_on_its_line(text):
    check_disk_script(text)
    check_ramdisk_script(text)


def check_disk_script(reason: str) -> None:
    script = ipxe.render_disk(DiskBoot(reason))
    assert words(script) == words(ipxe.render_disk(DiskBoot("calm")))
    shown = script.splitlines()[1]
    assert not re.search(r"[^A-Za-z0-9 .,:/()_+@-]", shown)
    assert len(shown) < 250


def check_ramdisk_script(name: str) -> None:
    script = ipxe.render_ramdisk(plan(host=name), MAC)
    assert words(script) == words(ipxe.render_ramdisk(plan(), MAC))
    assert script.count("||") == ipxe.render_ramdisk(plan(), MAC).count("||")
    assert script.count("$") == ipxe.render_ramdisk(plan(), MAC).count("$")


@pytest.mark.parametrize("text", ["52:54:00:AB:cd:EF", "52-54-00-ab-cd-ef", "525400abcdef"])
def test_macs_in_their_usual_spellings(text):
    assert ipxe.parse_mac(text) == MAC


@pytest.mark.parametrize("text", ["", "52:54:00:ab:cd", MAC + ":01", MAC + "\n", "zz" * 6, "é"])
def test_what_is_no_mac(text):
    with pytest.raises(ipxe.InvalidMac, match="not an Ethernet address"):
        ipxe.parse_mac(text)


@given(st.text())
def test_a_mac_is_parsed_or_refused_with_a_bounded_message(text):
    try:
        said = ipxe.parse_mac(text)
    except ipxe.InvalidMac as error:
        said = str(error)
    assert len(said) < 100
    assert re.fullmatch("[0-9a-f]{2}(:[0-9a-f]{2}){5}", said) or "not an Ethernet" in said
