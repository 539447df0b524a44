"""What the boot loader of a disk would start, read from its settings."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billet_agent.plan.filesystem import filesystem_kind
from billet_agent.plan.loaders import NoStart, Start, choose_start

ROOT = "root=UUID=11aa ro console=ttyS0"
DEBIAN = """\
set default="0"
if [ -s $prefix/grubenv ]; then
  load_env
fi
if [ "${next_entry}" ] ; then
   set default="${next_entry}"
   set next_entry=
else
   set default="%s"
fi
function load_video {
  insmod all_video
}
menuentry 'Debian GNU/Linux' --class debian $menuentry_id_option 'gnulinux-simple-11aa' {
\tload_video
\tif [ x$feature_platform_search_hint = xy ]; then
\t  search --no-floppy --fs-uuid --set=root  11aa
\tfi
\techo\t'Loading Linux 6.1 ...'
\tlinux\t/boot/vmlinuz-6.1 root=UUID=11aa ro console=ttyS0 $vt_handoff
\tinitrd\t/boot/initrd.img-6.1
}
submenu 'Advanced options' $menuentry_id_option 'gnulinux-advanced-11aa' {
\tmenuentry 'Linux 5.10' --class debian $menuentry_id_option 'gnulinux-5.10-advanced-11aa' {
\t\tlinux\t/boot/vmlinuz-5.10 root=UUID=11aa ro single
\t\tinitrd\t/boot/early.img /boot/initrd.img-5.10
\t}
}
"""
UBUNTU = """\
set default="${saved_entry}"
menuentry 'Ubuntu' {
\tif [ "${initrdfail}" = 1 ]; then
\t  linux\t/vmlinuz root=PARTUUID=22 ro
\t  initrd\t/initrd.img
\telse
\t  linux\t/vmlinuz root=PARTUUID=22 ro panic=-1
\tfi
}
"""
FEDORA = """\
set default="${saved_entry}"
set kernelopts="root=UUID=ff ro"
insmod blscfg
blscfg
"""
BLS = """\
title Fedora Linux (%s)
version %s
linux /vmlinuz-%s
initrd /initramfs-%s.img $tuned_initrd
options $kernelopts quiet $tuned_params
"""
EXTLINUX = """\
DEFAULT lts
LABEL grsec
  LINUX vmlinuz-grsec
  APPEND root=LABEL=/
LABEL lts
  LINUX vmlinuz-lts
  INITRD initramfs-lts
  APPEND root=UUID=33 modules=ext4 console=ttyS0
"""


class Files(dict[str, str]):
    """A file system of a test: its files' texts by path."""

    def text(self, path: str) -> str | None:
        return self.get(path)

    def names(self, path: str) -> list[str]:
        return [key.removeprefix(f"{path}/") for key in self if key.startswith(f"{path}/")]


def bls(*versions: str) -> dict[str, str]:
    return {f"loader/entries/m-{v}.conf": BLS.replace("%s", v) for v in versions}


def started(files: dict[str, str]) -> Start:
    found = choose_start(Files(files))
    assert isinstance(found, Start), found
    return found


def refused(files: dict[str, str]) -> str:
    found = choose_start(Files(files))
    assert isinstance(found, NoStart), found
    return found.reason


def test_debians_first_entry() -> None:
    found = started({"boot/grub/grub.cfg": DEBIAN % "0"})
    assert found == Start(
        "boot/vmlinuz-6.1",
        ("boot/initrd.img-6.1",),
        f"BOOT_IMAGE=/boot/vmlinuz-6.1 {ROOT}",
        "boot/grub/grub.cfg",
    )


@pytest.mark.parametrize(
    "default",
    [
        "gnulinux-advanced-11aa>gnulinux-5.10-advanced-11aa",
        "Advanced options>Linux 5.10",
        "gnulinux-5.10-advanced-11aa",
    ],
)
def test_a_default_in_a_submenu(default: str) -> None:
    found = started({"boot/grub/grub.cfg": DEBIAN % default})
    assert found.kernel == "boot/vmlinuz-5.10"
    assert found.initrds == ("boot/early.img", "boot/initrd.img-5.10")


@pytest.mark.parametrize("default", ["7", "gone", "", "${saved_entry}"])
def test_of_a_default_that_is_not_there_the_first_entry(default: str) -> None:
    assert started({"boot/grub/grub.cfg": DEBIAN % default}).kernel == "boot/vmlinuz-6.1"


def test_the_environment_block_decides() -> None:
    files = {"boot/grub/grub.cfg": DEBIAN % "${saved_entry}"}
    files["boot/grub/grubenv"] = "# GRUB Environment Block\nsaved_entry=Linux 5.10\n#####"
    assert started(files).kernel == "boot/vmlinuz-5.10"
    files["boot/grub/grubenv"] = "next_entry=0\nsaved_entry=Linux 5.10\n"
    assert started(files).kernel == "boot/vmlinuz-6.1"


def test_a_boot_partition_and_the_branch_with_an_initramfs() -> None:
    found = started({"grub/grub.cfg": UBUNTU})
    assert (found.kernel, found.initrds) == ("vmlinuz", ("initrd.img",))
    assert found.arguments == "BOOT_IMAGE=/vmlinuz root=PARTUUID=22 ro"


def test_fedoras_entries_newest_first_without_rescue() -> None:
    files = {"grub2/grub.cfg": FEDORA, **bls("6.9.1-200", "6.10.2-100", "0-rescue-ab")}
    found = started(files)
    assert found.kernel == "vmlinuz-6.10.2-100"
    assert found.initrds == ("initramfs-6.10.2-100.img",)
    assert found.arguments == "BOOT_IMAGE=/vmlinuz-6.10.2-100 root=UUID=ff ro quiet"
    files["grub2/grubenv"] = "saved_entry=m-6.9.1-200\nkernelopts=root=UUID=ee rw\n"
    found = started(files)
    assert found.kernel == "vmlinuz-6.9.1-200"


def test_systemd_boot() -> None:
    entry = "title A\nlinux /a/linux\ninitrd /a/initrd\noptions root=/dev/vda2\noptions rw\n"
    files = {"loader/entries/a.conf": entry, "loader/entries/b.conf": entry.replace("/a/", "/b/")}
    assert started(files).kernel == "b/linux"
    files["loader/loader.conf"] = "timeout 3\ndefault a.conf\n"
    assert started(files).arguments == "BOOT_IMAGE=/a/linux root=/dev/vda2 rw"


def test_extlinux_paths_are_of_its_folder() -> None:
    found = started({"boot/extlinux/extlinux.conf": EXTLINUX})
    assert found.kernel == "boot/extlinux/vmlinuz-lts"
    assert found.initrds == ("boot/extlinux/initramfs-lts",)


def test_no_loader_at_all() -> None:
    assert choose_start(Files({"etc/fstab": ""})) is None


@pytest.mark.parametrize(
    ("linux", "words"),
    [
        ("linux /vmlinuz quiet", "names no root file system"),
        ("linux (hd1,gpt2)/vmlinuz root=/dev/vda1", "outside its file system"),
        ("linux /../vmlinuz root=/dev/vda1", "outside its file system"),
        ("linux /vmlinuz root=/dev/vda1 a=\x01", "not printable"),
        (f"linux /vmlinuz root=/dev/vda1 a={'x' * 2048}", "the kernel takes 2047"),
        ("chainloader /efi/x.efi", "has no entry with a kernel"),
    ],
)
def test_refused_with_the_reason(linux: str, words: str) -> None:
    text = f"menuentry 'a' {{\n{linux}\n}}\n"
    assert words in refused({"boot/grub/grub.cfg": text})


def test_menus_nested_without_end() -> None:
    assert "deeper than" in refused({"boot/grub/grub.cfg": "submenu 'a' {\n" * 20})


def test_a_quoted_argument_stays_one() -> None:
    text = 'menuentry a {\nlinux /k root=/dev/vda1 "dyndbg=file a +p"\n}\n'
    assert started({"grub/grub.cfg": text}).arguments.endswith('"dyndbg=file a +p"')


_LINES = st.sampled_from(
    [
        *DEBIAN.split("\n"),
        *FEDORA.split("\n"),
        "}",
        "submenu x {",
        "menuentry {",
        "'",
        "linux",
        "\\",
    ]
)


@given(st.lists(_LINES | st.text(max_size=30), max_size=40), st.text(max_size=80))
def test_any_text_ends_in_a_start_or_a_reason(lines: list[str], other: str) -> None:
    files = {"grub/grub.cfg": "\n".join(lines), "grub/grubenv": other, "extlinux.conf": other}
    found = choose_start(Files({**files, "loader/entries/a.conf": other}))
    assert found is None or isinstance(found, Start | NoStart)


@pytest.mark.parametrize(
    ("offset", "magic", "kind"),
    [(0x438, b"\x53\xef", "ext4"), (0, b"XFSB", "xfs"), (0x52, b"FAT32", "vfat"), (0, b"", None)],
)
def test_file_systems(offset: int, magic: bytes, kind: str | None) -> None:
    assert filesystem_kind(bytes(offset) + magic + bytes(4096)) == kind
