"""Compressed qcow2 clusters: exactly one cluster comes out, or the image is damaged.

Both libraries let other threads run meanwhile. Bytes behind the stream's end are other clusters'.
"""

import sys
from collections.abc import Callable
from typing import cast

from isal import igzip_lib

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

HISTORY_BITS = 12
"""qcow2's deflate looks back at most 4 KiB (QEMU docs/interop/qcow2.txt)."""

_WINDOW_BITS = 22
"""A cluster has at most 2 MiB; a stream that wants a bigger window is none of ours."""

_IsalError = cast(type[Exception], igzip_lib.error)
Inflate = Callable[[bytes, int], bytes]


class BadCluster(Exception):
    """A compressed cluster cannot be read; the text says why."""


def inflater(compression: str) -> Inflate:
    """Return the function (compressed bytes, size wanted) -> bytes; for one thread at a time."""
    return {"zlib": _zlib, "zstd": _zstd}[compression]


def _zlib(data: bytes, size: int) -> bytes:
    stream = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_DEFLATE, hist_bits=HISTORY_BITS)
    try:
        out: bytes = stream.decompress(data, size)
    except (_IsalError, EOFError) as error:
        raise BadCluster(str(error)) from error
    return _whole(out, size)


def _zstd(data: bytes, size: int) -> bytes:
    stream = zstd.ZstdDecompressor(
        options={zstd.DecompressionParameter.window_log_max: _WINDOW_BITS}
    )
    try:
        out = stream.decompress(data, size + 1)
    except (zstd.ZstdError, EOFError) as error:
        raise BadCluster(str(error)) from error
    if len(out) == size and not stream.eof:
        raise BadCluster("the zstd frame does not end")
    return _whole(out, size)


def _whole(out: bytes, size: int) -> bytes:
    if len(out) != size:
        raise BadCluster(f"{len(out)} bytes came out, not {size}")
    return out
