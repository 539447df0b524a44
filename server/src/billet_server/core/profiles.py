"""Metal3's hardware profiles: a name in the status, and a root disk where no hints are given."""

from billet_server.core.bmcaddress import split_scheme
from billet_server.core.host import Spec
from billet_server.core.turn import Turn
from billet_wire import RootDeviceHints

HINTS: dict[str, RootDeviceHints] = {
    "libvirt": RootDeviceHints(device_name="/dev/vda"),
    "openstack": RootDeviceHints(device_name="/dev/vdb"),
    "dell": RootDeviceHints(hctl="0:0:0:0"),
    "dell-raid": RootDeviceHints(hctl="0:2:0:0"),
}
""""unknown" meant /dev/sda for Metal3; here it means no hint, as "empty" does, since the smallest
fitting disk is right more often than the kernel's first name."""


def profile_of(spec: Spec) -> str:
    """Return the profile's name; a libvirt:// host has that profile without being told."""
    is_libvirt = split_scheme(spec.bmc.address)[0] == "libvirt"
    return spec.hardware_profile or ("libvirt" if is_libvirt else "unknown")


def set_profile(turn: Turn) -> None:
    """Write the profile down where it is another than before."""
    name = profile_of(turn.host.spec)
    if turn.status.hardware_profile != name:
        turn.status.hardware_profile = name
        turn.note("ProfileSet", f"hardware profile {name}")


def hints_of(spec: Spec) -> RootDeviceHints | None:
    """Return what chooses the root disk: the hints given, or those of the profile."""
    return spec.root_device_hints or HINTS.get(profile_of(spec))
