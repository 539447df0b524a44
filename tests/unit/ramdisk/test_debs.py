"""apt's simulation, read."""

from pathlib import Path

from billet_ramdisk.debs import parse_simulation

SIMULATION = """\
Inst gcc-12-base (12.2.0-14+deb12u1 Debian:12.14/oldstable [amd64])
Inst libc6 (2.36-9+deb12u14 Debian:12.14/oldstable, Debian-Security:12 [amd64]) [libgcc-s1:amd64 ]
Conf libc6 (2.36-9+deb12u14 Debian:12.14/oldstable [amd64])
Inst qemu-utils (1:7.2+dfsg-7 Debian:12.14/oldstable [amd64])
Inst python3-jinja2 (3.1.2-1 Debian:12.14/oldstable [all])
"""


def test_packages_keep_apts_order_and_have_their_files():
    found = parse_simulation(SIMULATION, Path("/c"))
    assert [deb.path.name for deb in found] == [
        "gcc-12-base_12.2.0-14+deb12u1_amd64.deb",
        "libc6_2.36-9+deb12u14_amd64.deb",
        "qemu-utils_1%3a7.2+dfsg-7_amd64.deb",
        "python3-jinja2_3.1.2-1_all.deb",
    ]
    assert found[2].version == "1:7.2+dfsg-7"
