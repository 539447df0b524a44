"""What the server can ask an agent to do: one struct of parameters for each kind of job."""

from typing import Literal

import msgspec


class RootDeviceHints(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """Metal3 ``spec.rootDeviceHints``: all given hints must match.

    deviceName, hctl, serialNumber, wwn*: exact; model, vendor: substring; minSizeGigabytes: >=.
    """

    device_name: str | None = None
    hctl: str | None = None
    model: str | None = None
    vendor: str | None = None
    serial_number: str | None = None
    min_size_gigabytes: int | None = None
    wwn: str | None = None
    wwn_with_extension: str | None = None
    wwn_vendor_extension: str | None = None
    rotational: bool | None = None


class ImageSource(msgspec.Struct, frozen=True):
    """Metal3 ``spec.image``: where the image comes from and how it is proved.

    ``checksum`` is a hex digest or the http(s) URL of a sum file; ``checksum_type`` is md5,
    sha256, sha512 or auto (by length); ``format`` is raw, qcow2, vdi, vmdk or None (detect).
    ``mirrors`` are further http(s) URLs of the same file, tried in turn after ``url``;
    ``rate_bytes_s`` is how fast it may be fetched at the most (None: as fast as it comes).
    """

    url: str
    checksum: str
    checksum_type: Literal["md5", "sha256", "sha512", "auto"] = "auto"
    format: Literal["raw", "qcow2", "vdi", "vmdk"] | None = None
    mirrors: tuple[str, ...] = ()
    rate_bytes_s: int | None = None


class Inspect(msgspec.Struct, frozen=True, tag_field="kind", tag="inspect"):
    """Collect the inventory. Result: `InspectResult`."""


class Clean(msgspec.Struct, frozen=True, tag_field="kind", tag="clean"):
    """Wipe signatures and both partition tables of every internal disk. Result: `CleanResult`.

    ``protect_data``: wipe nothing where any of the disks holds data; problem data-protected.
    """

    scope: Literal["metadata"] = "metadata"
    protect_data: bool = False


class Deploy(msgspec.Struct, frozen=True, tag_field="kind", tag="deploy"):
    """Put an image on the root disk: choose disk, clean, fetch, verify, write, config drive, boot.

    ``config_drive`` is a finished ISO 9660 image (label config-2, at most 64 MiB) or None.
    ``clean`` says whether the metadata of all disks is wiped first; ``protect_data`` is as for
    `Clean`, of the root disk alone where nothing is cleaned. Result: `DeployResult`.
    """

    image: ImageSource
    hints: RootDeviceHints | None = None
    config_drive: bytes | None = None
    clean: bool = True
    protect_data: bool = False


class HandOver(msgspec.Struct, frozen=True, tag_field="kind", tag="hand-over"):
    """Leave the machine to its disk: sync, `Goodbye`, then reboot or power off.

    ``kexec``: instead of a reboot start the kernel of the disk that this agent has written, where
    that can be. Result: `HandOverResult`.
    """

    action: Literal["reboot", "power-off"] = "reboot"
    kexec: bool = False


JobParams = Inspect | Clean | Deploy | HandOver


class Job(msgspec.Struct, frozen=True):
    """One job: an id that is unique for its host and operation, and its parameters."""

    id: str
    params: JobParams
