"""What the host refers to: Secrets, network attachments of its cards."""

from collections.abc import Iterator

from billet_server.core.validation.addresses import MAC
from billet_server.core.validation.faults import (
    DUPLICATE,
    FORBIDDEN,
    INVALID,
    REQUIRED,
    Fault,
    Json,
    part,
    quote,
    rows,
    text,
)


def secret_faults(host: Json) -> Iterator[Fault]:
    """Check that Secrets are in the host's namespace."""
    namespace = text(part(host, "metadata"), "namespace")
    for field in ("metaData", "networkData", "userData"):
        other = text(part(part(host, "spec"), field), "namespace")
        if other and other != namespace:
            reason = f"the Secret must be in the host's namespace {namespace}, not in {other}"
            yield Fault(f"spec.{field}.namespace", FORBIDDEN, reason)


def interface_faults(host: Json) -> Iterator[Fault]:
    """Check that each of ``spec.networkInterfaces`` names one card, and no card comes twice."""
    seen: set[str] = set()
    for place, row in rows(part(host, "spec"), "networkInterfaces"):
        path = f"spec.networkInterfaces[{place}]"
        name, mac = text(row, "name"), text(row, "macAddress")
        if not name and not mac:
            yield Fault(path, REQUIRED, "name or macAddress of the network card")
        elif name and mac:
            rule = "name and macAddress exclude each other: give the one that you know"
            yield Fault(path, FORBIDDEN, rule)
        if mac and not MAC.fullmatch(mac):
            rule = "must be six pairs of hex digits with colons, like 00:c2:fc:3b:e1:01"
            yield Fault(f"{path}.macAddress", INVALID, f"{quote(mac)}: {rule}")
        for field, value, key in (
            ("name", name, f"name {name}"),
            ("macAddress", mac, f"mac {mac.lower()}"),
        ):
            if value and key in seen:
                yield Fault(f"{path}.{field}", DUPLICATE, quote(value))
            seen.add(key)
