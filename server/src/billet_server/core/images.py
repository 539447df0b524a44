"""``spec.image`` to what the agent is asked to write."""

import hashlib
import re
from typing import Literal, cast
from urllib.parse import urlsplit

import msgspec

from billet_server.core.download import Download
from billet_server.core.host import Image
from billet_server.core.problems import Fault
from billet_wire import ImageSource, RootDeviceHints

_TYPES = ("md5", "sha256", "sha512", "auto")
_FORMATS = ("raw", "qcow2", "vdi", "vmdk")
_DIGEST = re.compile(
    r"(md5:)?[0-9a-f]{32}|(sha256:)?[0-9a-f]{64}|(sha512:)?[0-9a-f]{128}", re.IGNORECASE
)


def image_source(image: Image, download: Download = Download()) -> ImageSource | Fault:  # noqa: B008 - immutable
    """Return the agent's form of an image, or why it cannot be used."""
    if urlsplit(image.url).scheme not in ("http", "https"):
        return Fault(
            "image-unsupported", f"spec.image.url {image.url!r} is not an http or https URL"
        )
    checksum = (image.checksum or "").strip()
    if not checksum:
        return Fault(
            "image-missing-checksum", f"spec.image.checksum is empty for image {image.url}"
        )
    if not _DIGEST.fullmatch(checksum) and urlsplit(checksum).scheme not in ("http", "https"):
        return Fault(
            "image-unsupported",
            f"spec.image.checksum {checksum!r} is neither a digest of 32 (md5), 64 (sha256) or"
            " 128 (sha512) hex digits nor an http(s) URL of a sum file",
        )
    kind = image.checksum_type or "auto"
    if kind not in _TYPES:
        return Fault(
            "image-unsupported", f"spec.image.checksumType {kind!r} is not one of {_TYPES}"
        )
    if image.format == "live-iso":
        text = "spec.image.format live-iso: Billet writes images to disks and boots none as a CD"
        return Fault("image-unsupported", text)
    if image.format is not None and image.format not in _FORMATS:
        return Fault(
            "image-unsupported", f"spec.image.format {image.format!r} is not one of {_FORMATS}"
        )
    return ImageSource(
        url=image.url,
        checksum=checksum,
        checksum_type=cast('Literal["md5", "sha256", "sha512", "auto"]', kind),
        format=cast('Literal["raw", "qcow2", "vdi", "vmdk"] | None', image.format),
        mirrors=download.mirrors,
        rate_bytes_s=download.rate_bytes_s,
    )


def same_image(one: Image | None, other: Image | None) -> bool:
    """Whether no re-provisioning is needed: Metal3 compares the URL only."""
    return (one.url if one else "") == (other.url if other else "")


def hints_key(hints: RootDeviceHints) -> str:
    """Return a short key that changes with any hint; part of job ids."""
    return hashlib.sha256(msgspec.json.encode(hints)).hexdigest()[:12]


def image_key(image: Image) -> str:
    """Return a short key that changes with any field of the image; part of job ids."""
    text = "\n".join(
        (image.url, image.checksum or "", image.checksum_type or "", image.format or "")
    )
    return hashlib.sha256(text.encode()).hexdigest()[:12]
