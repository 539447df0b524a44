"""Checks of a BareMetalHost on its way into the API, beyond what its schema can say.

They are those of Metal3's validating webhook (create and update, never delete), and what Metal3
does and Billet does not is refused by name. The embedded API and the webhook for clusters
(`billet_server.admission`) ask here. Pure: no name is looked up, nothing is fetched.
"""

from collections.abc import Iterator

import msgspec

from billet_server.core.host import Spec
from billet_server.core.validation import addresses, annotations, disks, references
from billet_server.core.validation.changes import change_faults
from billet_server.core.validation.faults import INVALID, Fault, Json
from billet_server.core.validation.warnings import warnings_of

__all__ = ["Fault", "host_warnings", "validate_host"]

_CHECKS = (
    addresses.name_faults,
    addresses.bmc_faults,
    addresses.power_faults,
    annotations.annotation_faults,
    disks.image_faults,
    disks.device_faults,
    disks.raid_faults,
    disks.deploy_faults,
    references.secret_faults,
    references.interface_faults,
)


def validate_host(new: Json, old: Json | None) -> list[Fault]:
    """Return all faults of a BareMetalHost, by path; ``old`` is the object before an update.

    Both are plain objects of ``metal3.io/v1alpha1``. What the update does not touch is not
    refused: an object that was let in once can always be labelled or deleted.
    """
    faults = set(_faults_of(new))
    if old is not None:
        faults -= set(_faults_of(old))
        faults |= set(change_faults(new, old))
    return sorted(faults)


def host_warnings(new: Json, old: Json | None) -> list[str]:
    """Return what the object asks for and nothing follows from; not again what ``old`` asked."""
    known = set() if old is None else set(warnings_of(old))
    return sorted(set(warnings_of(new)) - known)


def _faults_of(host: Json) -> Iterator[Fault]:
    for check in _CHECKS:
        yield from check(host)
    # Where the schema has done its work there is none; a webhook may be asked by anybody.
    try:
        msgspec.convert(host.get("spec") or {}, Spec, strict=False)
    except msgspec.ValidationError as error:
        yield Fault("spec", INVALID, f"cannot be read: {error}")
