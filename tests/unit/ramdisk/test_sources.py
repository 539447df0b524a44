"""The build machine's apt sources, as people write them, become those of one Debian release."""

import pytest
from billet_ramdisk.debs import host_codename, host_sources
from billet_ramdisk.sources import (
    parse_deb822,
    parse_one_line,
    render_deb822,
    select_release,
)
from billet_ramdisk.steps import BuildError

ONE_LINE = """\
# comment
deb http://mirror.example/debian bookworm main contrib non-free-firmware
deb-src http://mirror.example/debian bookworm main
deb [arch=amd64,i386 signed-by=/k.gpg] http://sec.example/debian-security bookworm-security main # x
deb [signed-by=/k.gpg] https://tool.example/apt bookworm stable
"""

DEB822 = """\
Types: deb deb-src
# a remark
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates bookworm-backports
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 abcd

Enabled: no
Types: deb
uris: http://mirror.example/other
Suites: bookworm
Components: main

Types: deb
URIs: http://mirror.example/debian
Suites: trixie
Components: main
"""


def test_one_line_sources():
    kept = select_release(parse_one_line(ONE_LINE), "bookworm")
    assert [stanza["URIs"] for stanza in kept] == [
        "http://mirror.example/debian",
        "http://sec.example/debian-security",
    ]
    assert kept[0]["Components"] == "main non-free-firmware"
    assert kept[1]["Architectures"] == "amd64 i386"
    assert kept[1]["Signed-By"] == "/k.gpg"


def test_deb822_sources():
    (kept,) = select_release(parse_deb822(DEB822), "bookworm")
    assert kept["Suites"] == "bookworm bookworm-updates"
    assert kept["Types"] == "deb"
    assert kept["Signed-By"].splitlines()[-1] == " abcd"


def test_what_is_rendered_reads_back_the_same():
    stanzas = parse_one_line(ONE_LINE) + parse_deb822(DEB822)
    assert parse_deb822(render_deb822(stanzas)) == stanzas


def test_a_machine_without_debian_sources_is_told(tmp_path):
    (tmp_path / "sources.list").write_text("deb https://tool.example/apt bookworm stable\n")
    with pytest.raises(BuildError, match="no package source for Debian bookworm"):
        host_sources("bookworm", tmp_path)


def test_sources_of_both_spellings_are_read(tmp_path):
    (tmp_path / "sources.list").write_text(ONE_LINE)
    folder = tmp_path / "sources.list.d"
    folder.mkdir()
    (folder / "debian.sources").write_text(DEB822)
    (folder / "off.sources.disabled").write_text(DEB822)
    assert host_sources("bookworm", tmp_path).count("URIs:") == 3


def test_release_name(tmp_path):
    release = tmp_path / "os-release"
    release.write_text("ID=debian\nVERSION_CODENAME=bookworm\n")
    assert host_codename(release) == "bookworm"
    release.write_text("ID=other\n")
    with pytest.raises(BuildError, match="Debian machine"):
        host_codename(release)
