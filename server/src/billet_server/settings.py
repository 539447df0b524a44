"""Settings of `billet up`: raw inputs in, one frozen `Settings` out, all faults at once."""

import ipaddress
import re
from pathlib import Path
from typing import Final, Literal, NamedTuple

from billet_server.core.bootplan import check_argument
from billet_server.core.download import parse_rate
from billet_server.core.lease import DEFAULT_DURATION_S, DEFAULT_RENEW_S
from billet_server.core.seen import Rules
from billet_server.errors import ConfigError

DhcpMode = Literal["dhcp", "proxy", "off"]

_NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_WEBHOOK_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?|[0-9A-Fa-f:]+")
_IDENTITY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
_HOST_PORT = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,252}:[0-9]{1,5}")
_INTERFACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,14}")

SOFT_OFF_MOST_S: Final = 480.0
"""An effect ends after `perform.EFFECT_DEADLINE_S`; the hard off must still fit in."""

FAST_TRACK_MOST_S: Final = 30 * 86400.0
"""A month in a ramdisk is no while any more."""


class Webhook(NamedTuple):
    """Where the validating webhook listens; its files, or the names for a certificate of ours."""

    host: str
    port: int
    cert: Path | None
    key: Path | None
    names: tuple[str, ...]


class Inputs(NamedTuple):
    """What the command line and the environment said, unchecked."""

    state_dir: str = ""
    kubeconfig: str = ""
    in_cluster: bool = False
    namespaces: tuple[str, ...] = ()
    identity: str = ""
    lease_namespace: str = ""
    lease_duration_s: float = DEFAULT_DURATION_S
    lease_renew_s: float = DEFAULT_RENEW_S
    agent_addresses: tuple[str, ...] = ()
    api_host: str = "127.0.0.1"
    api_port: int = 6443
    api_fd: int | None = None
    interface: str = ""
    address: str = ""
    netmask: str = "255.255.255.0"
    dhcp: str = ""
    dhcp_range: str = ""
    router: str = ""
    dns: str = ""
    http_port: int = 8080
    agent_port: int = 8443
    ramdisk_dir: str = ""
    kernel_arguments: tuple[str, ...] = ()
    state_names: str = "seed"
    boot_timeout_s: float = 900.0
    agent_call_s: float = 600.0
    power_poll_s: float = 60.0
    retry_base_s: float = 10.0
    max_retries: int = 10
    max_provisioning_retries: int = 5
    agent_lost_s: float = 60.0
    hand_over_s: float = 120.0
    soft_off_s: float = 180.0
    fast_track_s: float = Rules().fast_track_s
    bmc_timeout_s: float = 5.0
    workers: int = 64
    max_inspecting: int = Rules().max_inspecting
    max_provisioning: int = Rules().max_provisioning
    max_cleaning: int = Rules().max_cleaning
    image_rate_limit: str = "0"
    redfish_ca: str = ""
    webhook_port: int = 0
    webhook_host: str = "0.0.0.0"
    webhook_cert: str = ""
    webhook_key: str = ""
    webhook_names: tuple[str, ...] = ()
    metrics_host: str = "127.0.0.1"
    metrics_port: int = 9090
    metrics_per_host: bool = False


class Settings(NamedTuple):
    """Checked settings. ``address`` is this machine's on the provisioning network."""

    state_dir: Path
    kubeconfig: Path | None
    in_cluster: bool
    namespaces: tuple[str, ...]
    identity: str
    lease_namespace: str
    lease_duration_s: float
    lease_renew_s: float
    agent_addresses: tuple[str, ...]
    api_host: str
    api_port: int
    api_fd: int | None
    interface: str
    address: str
    netmask: str
    dhcp: DhcpMode
    range_start: str
    range_end: str
    router: str | None
    dns: str | None
    http_port: int
    agent_port: int
    ramdisk_dir: Path
    kernel_arguments: tuple[str, ...]
    rules: Rules
    workers: int
    bmc_timeout_s: float
    redfish_ca: Path | None
    webhook: Webhook | None
    metrics_host: str
    metrics_port: int
    metrics_per_host: bool

    @property
    def embedded_api(self) -> bool:
        """Whether this process serves the Kubernetes API itself."""
        return self.kubeconfig is None and not self.in_cluster


def check(inputs: Inputs, interface_address: str | None = None) -> Settings:
    """Return the settings. Raises ConfigError with every fault.

    ``interface_address`` is what the interface has ("address/prefix"), where the caller looked.
    """
    faults: list[str] = []
    address, netmask = _network(inputs, interface_address, faults)
    mode, start, end = _dhcp(inputs, address, netmask, faults)
    for label, port, least in (
        ("--api-port", inputs.api_port, 0),
        ("--http-port", inputs.http_port, 1),
        ("--agent-port", inputs.agent_port, 1),
        ("--webhook-port", inputs.webhook_port, 0),
        ("--metrics-port", inputs.metrics_port, 0),
    ):
        if not least <= port < 65536:
            faults.append(f"{label} {port} is not a port")
    if inputs.kubeconfig and not Path(inputs.kubeconfig).is_file():
        faults.append(f"--kubeconfig {inputs.kubeconfig} is not a file")
    if inputs.state_names not in ("seed", "current"):
        faults.append(f"--state-names {inputs.state_names!r} is neither seed nor current")
    faults += [
        f"--namespace {namespace!r} is no namespace: they have lower case letters, digits and -"
        for namespace in inputs.namespaces
        if not _NAMESPACE.fullmatch(namespace)
    ]
    for argument in inputs.kernel_arguments:
        try:
            check_argument(argument)
        except ValueError as error:
            faults.append(f"--kernel-argument: {error}")
    if not 0 < inputs.workers <= 1024:
        faults.append(f"--workers {inputs.workers} is not between 1 and 1024")
    for label, places in (
        ("--max-inspecting", inputs.max_inspecting),
        ("--max-provisioning", inputs.max_provisioning),
        ("--max-cleaning", inputs.max_cleaning),
        ("--max-retries", inputs.max_retries),
        ("--max-provisioning-retries", inputs.max_provisioning_retries),
    ):
        if places < 0:
            faults.append(f"{label} {places} is negative; 0 is no limit")
    _check_times(inputs, faults)
    rate = _image_rate(inputs.image_rate_limit, faults)
    webhook = _webhook(inputs, faults)
    faults += _lease_faults(inputs)
    if faults:
        raise ConfigError(faults)
    return Settings(
        state_dir=Path(inputs.state_dir or "/var/lib/billet"),
        kubeconfig=Path(inputs.kubeconfig) if inputs.kubeconfig else None,
        in_cluster=inputs.in_cluster,
        namespaces=tuple(dict.fromkeys(inputs.namespaces)),
        identity=inputs.identity,
        lease_namespace=inputs.lease_namespace,
        lease_duration_s=inputs.lease_duration_s,
        lease_renew_s=inputs.lease_renew_s,
        agent_addresses=_agent_addresses(inputs, address),
        api_host=inputs.api_host,
        api_port=inputs.api_port,
        api_fd=inputs.api_fd,
        interface=inputs.interface,
        address=address,
        netmask=netmask,
        dhcp=mode,
        range_start=start,
        range_end=end,
        router=inputs.router or None,
        dns=inputs.dns or None,
        http_port=inputs.http_port,
        agent_port=inputs.agent_port,
        ramdisk_dir=Path(inputs.ramdisk_dir or "build/ramdisk"),
        kernel_arguments=inputs.kernel_arguments,
        rules=Rules(
            ready_word="ready" if inputs.state_names == "seed" else "available",
            boot_request_s=inputs.boot_timeout_s,
            agent_call_s=inputs.agent_call_s,
            power_poll_s=inputs.power_poll_s,
            retry_base_s=inputs.retry_base_s,
            max_retries=inputs.max_retries,
            max_provisioning_retries=inputs.max_provisioning_retries,
            agent_lost_s=inputs.agent_lost_s,
            hand_over_s=inputs.hand_over_s,
            soft_off_s=inputs.soft_off_s,
            fast_track_s=inputs.fast_track_s,
            max_inspecting=inputs.max_inspecting,
            max_provisioning=inputs.max_provisioning,
            max_cleaning=inputs.max_cleaning,
            image_rate_bytes_s=rate,
        ),
        workers=inputs.workers,
        bmc_timeout_s=inputs.bmc_timeout_s,
        redfish_ca=Path(inputs.redfish_ca) if inputs.redfish_ca else None,
        webhook=webhook,
        metrics_host=inputs.metrics_host,
        metrics_port=inputs.metrics_port,
        metrics_per_host=inputs.metrics_per_host,
    )


def _webhook(inputs: Inputs, faults: list[str]) -> Webhook | None:
    cert, key, names = inputs.webhook_cert, inputs.webhook_key, inputs.webhook_names
    if not inputs.webhook_port:
        if cert or key or names:
            faults.append("--webhook-cert, --webhook-key, --webhook-name need a --webhook-port")
        return None
    if bool(cert) != bool(key):
        faults.append("--webhook-cert and --webhook-key go together")
    faults.extend(
        f"{label} {path} is not a file"
        for label, path in (("--webhook-cert", cert), ("--webhook-key", key))
        if path and not Path(path).is_file()
    )
    if cert and names:
        faults.append("--webhook-name is for a certificate of Billet's own CA, not --webhook-cert")
    faults.extend(
        f"--webhook-name {name!r} is neither a DNS name nor an address"
        for name in names
        if not _WEBHOOK_NAME.fullmatch(name)
    )
    try:
        ipaddress.ip_address(inputs.webhook_host)
    except ValueError:
        faults.append(f"--webhook-host {inputs.webhook_host!r} is not an IP address")
    return Webhook(
        host=inputs.webhook_host,
        port=inputs.webhook_port,
        cert=Path(cert) if cert else None,
        key=Path(key) if key else None,
        names=names,
    )


def _image_rate(text: str, faults: list[str]) -> int | None:
    try:
        return parse_rate(text)
    except ValueError as error:
        faults.append(f"--image-rate-limit {text!r} {error}")
        return None


def _lease_faults(inputs: Inputs) -> list[str]:
    faults = [
        f"--agent-address {text!r} is not HOST:PORT (a name or an IPv4 address, and a port)"
        for text in inputs.agent_addresses
        if not _HOST_PORT.fullmatch(text) or not 0 < int(text.rpartition(":")[2]) < 65536
    ]
    if inputs.identity and not _IDENTITY.fullmatch(inputs.identity):
        faults.append(f"--identity {inputs.identity!r} is not 1 to 200 letters, digits, - . or _")
    if inputs.lease_namespace and not _NAMESPACE.fullmatch(inputs.lease_namespace):
        faults.append(f"--lease-namespace {inputs.lease_namespace!r} is no namespace")
    if not 3 <= inputs.lease_duration_s <= 3600:
        faults.append(f"--lease-duration {inputs.lease_duration_s} is not between 3 and 3600")
    elif not 0.1 <= inputs.lease_renew_s <= inputs.lease_duration_s / 5:
        # The holder stops acting after two thirds: there must be time for a second try.
        faults.append(
            f"--lease-renew {inputs.lease_renew_s} is not between 0.1 and a fifth of"
            f" --lease-duration ({inputs.lease_duration_s / 5:g})"
        )
    return faults


def _agent_addresses(inputs: Inputs, address: str) -> tuple[str, ...]:
    """Return every server's address, our own first: whom an agent calls first is awake."""
    own = f"{address}:{inputs.agent_port}"
    given = tuple(dict.fromkeys(inputs.agent_addresses))
    if not given:
        return (own,)
    return (own, *(text for text in given if text != own)) if own in given else given


def _check_times(inputs: Inputs, faults: list[str]) -> None:
    for label, seconds in (
        ("--boot-timeout", inputs.boot_timeout_s),
        ("--agent-call-timeout", inputs.agent_call_s),
        ("--power-poll", inputs.power_poll_s),
        ("--agent-lost", inputs.agent_lost_s),
        ("--hand-over-timeout", inputs.hand_over_s),
        ("--soft-off-timeout", inputs.soft_off_s),
        ("--bmc-timeout", inputs.bmc_timeout_s),
    ):
        if seconds < 1:
            faults.append(f"{label} {seconds} is less than a second")
    if not 0.1 <= inputs.retry_base_s <= Rules().retry_cap_s:
        faults.append(
            f"--retry-base {inputs.retry_base_s} is not between 0.1 and"
            f" {Rules().retry_cap_s:.0f} seconds"
        )
    if not 0 <= inputs.fast_track_s <= FAST_TRACK_MOST_S:
        faults.append(
            f"--fast-track-s {inputs.fast_track_s} is not between 0 (off) and"
            f" {FAST_TRACK_MOST_S:.0f} seconds"
        )
    if inputs.soft_off_s > SOFT_OFF_MOST_S:
        faults.append(
            f"--soft-off-timeout {inputs.soft_off_s} is more than {SOFT_OFF_MOST_S:.0f} seconds"
        )


def _network(inputs: Inputs, interface_address: str | None, faults: list[str]) -> tuple[str, str]:
    if inputs.interface and not _INTERFACE.fullmatch(inputs.interface):
        faults.append(f"--interface {inputs.interface!r} is not an interface name")
    address, netmask = inputs.address, inputs.netmask
    if not address and interface_address:
        found = ipaddress.IPv4Interface(interface_address)
        address, netmask = str(found.ip), str(found.netmask)
    if not address:
        if inputs.interface:
            faults.append(
                f"interface {inputs.interface} has no IPv4 address; give it one"
                f" (ip address add 172.22.0.1/24 dev {inputs.interface}) or name one by --address"
            )
        return "127.0.0.1", netmask
    try:
        ipaddress.IPv4Address(address)
    except ValueError:
        faults.append(f"--address {address!r} is not an IPv4 address")
    return address, netmask


def _dhcp(
    inputs: Inputs, address: str, netmask: str, faults: list[str]
) -> tuple[DhcpMode, str, str]:
    word = inputs.dhcp or ("dhcp" if inputs.interface else "off")
    if word == "off":
        return "off", "", ""
    if word not in ("dhcp", "proxy"):
        faults.append(f"--dhcp {word!r} is none of dhcp, proxy, off")
        return "off", "", ""
    if not inputs.interface:
        faults.append(f"--dhcp {word} needs --interface: the provisioning network's interface")
    if word == "proxy":
        return "proxy", "", ""
    if inputs.dhcp_range:
        start, _, end = inputs.dhcp_range.partition(",")
        try:
            ipaddress.IPv4Address(start)
            ipaddress.IPv4Address(end)
        except ValueError:
            faults.append(
                f"--dhcp-range {inputs.dhcp_range!r} is not FIRST,LAST (two IPv4 addresses)"
            )
        return "dhcp", start, end
    try:
        network = ipaddress.IPv4Network(f"{address}/{netmask}", strict=False)
    except ValueError:
        faults.append(f"--netmask {netmask!r} is not a netmask")
        return "dhcp", "", ""
    # The upper half of the network, so that servers in the lower one keep their addresses.
    size = network.num_addresses
    return "dhcp", str(network[size // 2]), str(network[max(size - 2, 0)])
