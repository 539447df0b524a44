"""``ramdisk/build``: kernel and initramfs of the ramdisk."""

import argparse
import os
import subprocess
import sys
from pathlib import Path

from billet_ramdisk.build import Extras, Repository, build, check_firmware
from billet_ramdisk.dib import as_root
from billet_ramdisk.steps import BuildError, give_back

TOP = Path(__file__).resolve().parents[2]


def main() -> int:
    """Command line; 0 when the ramdisk is there, 1 with a reason on stderr."""
    parser = argparse.ArgumentParser(prog="ramdisk/build", description=__doc__)
    parser.add_argument("--out", type=Path, default=TOP / "build/ramdisk")
    parser.add_argument("--debs", type=Path, default=TOP / "build/debs", help="package cache")
    parser.add_argument("--force", action="store_true", help="build although nothing changed")
    parser.add_argument(
        *("--element", "-e"), action="append", default=[], help="a further element (repeat)"
    )
    parser.add_argument(
        *("--firmware", "-f"),
        action="append",
        default=[],
        metavar="PACKAGE",
        help="a Debian package with firmware, such as firmware-bnx2x (repeat)",
    )
    options = parser.parse_args()
    try:
        check_firmware(options.firmware)
        prefix = as_root()
        if prefix:
            os.execvp(prefix[0], [*prefix, sys.executable, "-m", "billet_ramdisk", *sys.argv[1:]])
        out, debs = options.out.resolve(), options.debs.resolve()
        try:
            extras = Extras(tuple(options.element), tuple(sorted(set(options.firmware))))
            build(Repository(TOP), out, debs, force=options.force, extras=extras)
        finally:
            give_back(out)
            give_back(debs)
    except (BuildError, OSError, subprocess.SubprocessError) as error:
        sys.stderr.write(f"ramdisk: not built: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("ramdisk: not built: interrupted\n")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
