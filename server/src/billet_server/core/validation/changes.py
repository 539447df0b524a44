"""What may not change, or only at certain times."""

from collections.abc import Iterator

from billet_server.core.annotations import DETACHED
from billet_server.core.validation.faults import FORBIDDEN, Fault, Json, part, text

# As Metal3: the address may change while registering, and while the host is detached.
_ADDRESS_MAY_CHANGE = ("", "unmanaged", "registering")

# The last one: a hasty edit can be taken back before anything follows from it.
_MAY_BECOME_EXTERNAL = ("ready", "available", "externally provisioned")


def change_faults(new: Json, old: Json) -> Iterator[Fault]:
    """Yield the faults of an update that are none of the new object alone."""
    new_spec, old_spec = part(new, "spec"), part(old, "spec")
    state = text(part(part(old, "status"), "provisioning"), "state")
    mac, old_mac = text(new_spec, "bootMACAddress"), text(old_spec, "bootMACAddress")
    if old_mac and mac.lower() != old_mac.lower():
        rule = f"may not change once set (it is {old_mac}); delete the host and create it anew"
        yield Fault("spec.bootMACAddress", FORBIDDEN, rule)
    is_turned_on = (
        new_spec.get("externallyProvisioned") is True
        and old_spec.get("externallyProvisioned") is not True
    )
    if is_turned_on and state not in _MAY_BECOME_EXTERNAL:
        now = f"it is {state} now" if state else "it has no state yet"
        rule = f"may be turned on when the host is created, or while it is ready; {now}"
        yield Fault("spec.externallyProvisioned", FORBIDDEN, rule)
    address = text(part(new_spec, "bmc"), "address")
    old_address = text(part(old_spec, "bmc"), "address")
    if not old_address or address == old_address:
        return
    # The annotation alone does not do: a host that is being worked on is detached later.
    is_detached = part(old, "status").get("operationalStatus") == "detached"
    if state not in _ADDRESS_MAY_CHANGE and not is_detached:
        rule = (
            f"may not change while the host is {state}; only while it is registering, or "
            f"status.operationalStatus is detached (annotation {DETACHED})"
        )
        yield Fault("spec.bmc.address", FORBIDDEN, rule)
