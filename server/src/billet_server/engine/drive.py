"""The config drive as an ISO 9660 image in memory (Joliet and Rock Ridge), by pycdlib."""

import io
import posixpath
from collections.abc import Mapping

import pycdlib

from billet_server.core.configdrive import LABEL


def build_iso(tree: Mapping[str, bytes]) -> bytes:
    """Return the image; blocking, proportional to its size."""
    iso = pycdlib.PyCdlib()
    iso.new(interchange_level=4, vol_ident=LABEL, joliet=3, rock_ridge="1.09")
    folders: set[str] = set()
    for path in sorted(tree):
        parent = ""
        for part in posixpath.dirname(path).split("/"):
            parent = f"{parent}/{part}"
            if parent not in folders:
                folders.add(parent)
                iso.add_directory(parent, joliet_path=parent, rr_name=part)
        full, name = f"/{path}", posixpath.basename(path)
        iso.add_fp(io.BytesIO(tree[path]), len(tree[path]), full, rr_name=name, joliet_path=full)
    out = io.BytesIO()
    iso.write_fp(out)
    iso.close()
    return out.getvalue()
