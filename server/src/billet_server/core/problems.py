"""Everything that can be wrong with a host, as a closed catalogue.

A `Fault` is one occurrence: catalogue id, one sentence (what was tried, on what, what came
back), raw evidence. The catalogue adds the likely cause, the next command and whether time
heals it. Ids are stable: docs/troubleshooting.md has a section for each.
"""

import re
from typing import NamedTuple

from billet_server.core.wording import printable, printable_lines
from billet_wire import JobProblem

_ID = re.compile(r"[a-z][a-z0-9-]{0,39}")


class Fault(NamedTuple):
    """One occurrence of a problem. ``advice`` None: as the catalogue says.

    ``heals`` counts only for an id that the catalogue does not know.
    """

    problem: str
    message: str
    evidence: str = ""
    advice: str | None = None
    heals: bool | None = None


class ProblemKind(NamedTuple):
    """A catalogue entry: likely cause and next step for a person; whether time can heal it.

    ``outside``: the cause is elsewhere and a try costs next to nothing (one question, no
    reboot), so tries are never counted against a limit.
    """

    title: str
    advice: str
    heals: bool
    outside: bool = False


CATALOGUE: dict[str, ProblemKind] = {
    "spec-invalid": ProblemKind(
        "the object cannot be acted upon", "correct the field with kubectl edit", heals=False
    ),
    "bmc-address": ProblemKind(
        "the BMC address cannot be used",
        "set spec.bmc.address to ipmi://HOST[:PORT], libvirt://HOST:PORT or"
        " redfish[+http|+https]://HOST[:PORT][/redfish/v1/Systems/ID]",
        heals=False,
    ),
    "bmc-secret-missing": ProblemKind(
        "the Secret with the BMC's credentials does not exist",
        "create it, or correct spec.bmc.credentialsName; the host goes on by itself",
        heals=False,
    ),
    "bmc-secret-malformed": ProblemKind(
        "the Secret with the BMC's credentials lacks something",
        "give it the keys username and password; the host goes on by itself",
        heals=False,
    ),
    "bmc-auth": ProblemKind(
        "the BMC refused the credentials",
        "correct username and password in the Secret; the host goes on by itself",
        heals=True,
    ),
    "bmc-unreachable": ProblemKind(
        "the BMC does not answer",
        "check address, cable, VLAN and that the BMC is up (ipmitool -I lanplus or curl to it)",
        heals=True,
        outside=True,
    ),
    "bmc-rejected": ProblemKind(
        "the BMC answered with an error",
        "look at the BMC's own log; a BMC reset often helps",
        heals=True,
    ),
    "bmc-unsupported": ProblemKind(
        "the BMC cannot do that", "use another driver in spec.bmc.address", heals=False
    ),
    "boot-mac-missing": ProblemKind(
        "the host has no bootMACAddress",
        "set spec.bootMACAddress to the MAC of the NIC on the provisioning network",
        heals=False,
    ),
    "architecture-unsupported": ProblemKind(
        "the ramdisk does not run on that architecture",
        "correct spec.architecture, or set spec.externallyProvisioned: only the power is then"
        " looked after",
        heals=False,
    ),
    "boot-mac-invalid": ProblemKind(
        "bootMACAddress is not a MAC address",
        "write it as six pairs of hex digits with colons, such as 00:c2:fc:3b:e1:01",
        heals=False,
    ),
    "boot-mac-conflict": ProblemKind(
        "two hosts have the same bootMACAddress",
        "correct or delete one of them; the other goes on by itself",
        heals=True,
    ),
    "bmc-conflict": ProblemKind(
        "two hosts have the same BMC",
        "correct spec.bmc.address or delete one of them; the other goes on by itself",
        heals=True,
    ),
    "status-invalid": ProblemKind(
        "the object's status says what no server wrote",
        "nothing is done to the machine; restore status.provisioning.state (kubectl edit"
        " --subresource=status), or delete the object and create it anew",
        heals=False,
    ),
    "status-annotation": ProblemKind(
        "the status to be restored cannot be read",
        "correct the annotation baremetalhost.metal3.io/status, or remove it: then the host"
        " starts over, and a machine that runs its image is inspected",
        heals=False,
    ),
    "status-refused": ProblemKind(
        "the API refused what the server wrote",
        "compare the definitions with the server's version: kubectl apply -f crds/",
        heals=True,
    ),
    "inventory-refused": ProblemKind(
        "the API refused the inventory",
        "compare the definitions with the server's version: kubectl apply -f crds/",
        heals=True,
    ),
    "boot-no-request": ProblemKind(
        "the machine did not ask for a network boot",
        "check that the NIC with this MAC is on the provisioning network and that network boot"
        " is enabled in the firmware; look at the machine's screen",
        heals=True,
    ),
    "boot-no-script": ProblemKind(
        "the machine got an address but did not fetch its boot script",
        "another DHCP server may have answered first; look at the machine's screen",
        heals=True,
    ),
    "boot-power-off": ProblemKind(
        "the power went off while the machine was booting into the ramdisk",
        "look at the machine's power supply and its BMC's log; it is booted again",
        heals=True,
    ),
    "agent-silent": ProblemKind(
        "the ramdisk was fetched but its agent did not call",
        "look at the machine's screen or serial console: it says why",
        heals=True,
    ),
    "agent-mac": ProblemKind(
        "the ramdisk does not see the NIC that the machine booted from",
        "correct spec.bootMACAddress, or build a ramdisk with that NIC's driver",
        heals=True,
    ),
    "agent-lost": ProblemKind(
        "the agent stopped answering",
        "the machine may have lost power or network; it will be booted again",
        heals=True,
    ),
    "agent-stalled": ProblemKind(
        "the agent is there but its job does not go on",
        "look at the machine's screen and at the agent's log; the machine will be booted again",
        heals=True,
    ),
    "agent-gone": ProblemKind(
        "the agent was not connected when it was needed", "the host is booted again", heals=True
    ),
    "image-missing-checksum": ProblemKind(
        "the image has no checksum",
        "set spec.image.checksum to a digest or the URL of a sum file",
        heals=False,
    ),
    "image-unsupported": ProblemKind(
        "the image cannot be used",
        "use an http(s) URL and format qcow2 or raw",
        heals=False,
    ),
    "image-fetch": ProblemKind(
        "the image could not be fetched",
        "check the URL with curl from the provisioning network",
        heals=True,
        outside=True,
    ),
    "image-short": ProblemKind(
        "the image ended too early", "check the web server and its disk", heals=True
    ),
    "image-checksum": ProblemKind(
        "the image is not what the checksum says",
        "correct spec.image.checksum, or publish the image and its sum file together",
        heals=True,
    ),
    "checksum-file": ProblemKind(
        "the sum file does not settle the digest",
        "make the sum file name the image exactly once, or put the digest into spec.image.checksum",
        heals=False,
    ),
    "image-format": ProblemKind(
        "the image is not of the format it should be",
        "set spec.image.format, or publish a qcow2",
        heals=False,
    ),
    "image-unsafe": ProblemKind(
        "the image refers to other files or uses unknown features",
        "flatten it: qemu-img convert -O qcow2 IN OUT",
        heals=False,
    ),
    "image-too-large": ProblemKind(
        "the image is larger than the disk",
        "choose a larger disk by rootDeviceHints or a smaller image",
        heals=False,
    ),
    "image-memory": ProblemKind(
        "the image does not fit the machine's memory",
        "give the machine more memory or publish a smaller (compressed) image",
        heals=False,
    ),
    "root-device": ProblemKind(
        "no disk fits", "correct spec.rootDeviceHints; status.hardware lists the disks", heals=False
    ),
    "disk-write": ProblemKind(
        "the disk could not be written", "check the disk (smartctl) and the cables", heals=True
    ),
    "clean": ProblemKind(
        "the disks could not be cleaned", "check the disk (smartctl) and the cables", heals=True
    ),
    "data-protected": ProblemKind(
        "a disk holds data, and the host's data is protected",
        "save what is needed, then remove the annotation billet.dev/protect-data",
        heals=False,
    ),
    "config-drive": ProblemKind(
        "the config drive could not be written", "look at the evidence", heals=True
    ),
    "boot-entry": ProblemKind(
        "the firmware's boot order could not be set", "look at the evidence", heals=True
    ),
    "image-boot": ProblemKind(
        "the image cannot boot on this machine",
        "use an image that boots in this firmware mode, or change spec.bootMode",
        heals=False,
    ),
    "hardware-details": ProblemKind(
        "the hardware that an annotation tells cannot be taken in",
        "correct the annotation inspect.metal3.io/hardwaredetails (JSON, as status.hardware),"
        " set spec.inspectionMode: disabled if it is not, or remove the annotation",
        heals=False,
    ),
    "preparation-unsupported": ProblemKind(
        "the host is to be prepared in a way that Billet does not know",
        "remove spec.raid and spec.firmware; make RAID volumes and firmware settings with the"
        " vendor's tools, and choose the volume by spec.rootDeviceHints",
        heals=False,
    ),
    "user-data-missing": ProblemKind(
        "a Secret for the config drive does not exist",
        "create it, or correct spec.userData/networkData/metaData; the host goes on by itself",
        heals=False,
    ),
    "user-data-malformed": ProblemKind(
        "a Secret for the config drive cannot be used",
        "correct it; the host goes on by itself",
        heals=False,
    ),
    "power-stuck": ProblemKind(
        "the power state did not change",
        "look at the BMC's log and at the machine itself",
        heals=True,
    ),
    "inspection-empty": ProblemKind(
        "the agent reported no inventory", "look at the agent's log", heals=True
    ),
    "retries-exhausted": ProblemKind(
        "an operation failed too often and is not tried again",
        "look at the last cause; then edit the host, or annotate it with billet.dev/retry",
        heals=False,
    ),
    "agent-busy": ProblemKind("the agent is busy with another job", "it is tried again", True),
    "agent-internal": ProblemKind(
        "the agent failed in a way it did not expect",
        "please report it with the evidence and the agent's log",
        heals=True,
    ),
    "internal": ProblemKind(
        "the server failed in a way it did not expect",
        "please report it with the server's log",
        heals=True,
    ),
}


def of_agent(problem: JobProblem, host: str) -> Fault:
    """Return an agent's problem as ours: its words cut and printable, its id an id."""
    shaped = _ID.fullmatch(problem.problem) is not None
    return Fault(
        problem.problem if shaped else "agent-internal",
        f"{host}: {printable(problem.message, 1000)}",
        printable_lines(problem.evidence, 2000),
        printable(problem.advice, 500) or None,
        problem.heals,
    )


def kind_of(problem: str) -> ProblemKind:
    """Return the catalogue entry; an id from a newer agent reads as its internal failure."""
    return CATALOGUE.get(problem, CATALOGUE["agent-internal"])


def heals(fault: Fault) -> bool:
    """Whether trying again later can help: the catalogue's word, else the agent's."""
    if fault.problem in CATALOGUE or fault.heals is None:
        return kind_of(fault.problem).heals
    return fault.heals


def advice(fault: Fault) -> str:
    """Return what a person should do."""
    return fault.advice or kind_of(fault.problem).advice
