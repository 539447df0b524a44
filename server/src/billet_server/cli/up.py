"""`billet up`: the server."""

import asyncio
import fcntl
import logging
import os
import socket
import struct
import sys

import click

from billet_server import settings
from billet_server.errors import ConfigError

_SIOCGIFADDR, _SIOCGIFNETMASK = 0x8915, 0x891B


@click.command(short_help="run the server")
@click.option("--state-dir", metavar="DIR", help="Keys, API data, logs. [/var/lib/billet]")
@click.option("--kubeconfig", metavar="FILE", help="Use this cluster instead of the own API.")
@click.option(
    "--namespace",
    "namespaces",
    multiple=True,
    metavar="NAME",
    help="Look after the hosts of this namespace only; repeatable. [all]",
)
@click.option(
    "--api-host",
    default="127.0.0.1",
    show_default=True,
    metavar="IP",
    help="Where the API listens.",
)
@click.option("--api-port", default=6443, show_default=True, help="Its port; 0: any free one.")
@click.option("--api-fd", type=int, metavar="FD", help="Inherited listening socket for the API.")
@click.option("--interface", metavar="NAME", help="The provisioning network's interface.")
@click.option("--address", metavar="IP", help="Own address there. [the interface's]")
@click.option(
    "--netmask",
    default="255.255.255.0",
    show_default=True,
    metavar="MASK",
    help="Only used with --address.",
)
@click.option(
    "--dhcp",
    type=click.Choice(["dhcp", "proxy", "off"]),
    help="Give addresses, boot files only, or neither. [dhcp with --interface, else off]",
)
@click.option(
    "--dhcp-range", metavar="FIRST,LAST", help="Addresses to give. [upper half of the network]"
)
@click.option("--router", metavar="IP", help="Default route for the machines. [none]")
@click.option("--dns", metavar="IP", help="Name server for the machines. [none]")
@click.option(
    "--agent-address",
    "agent_addresses",
    multiple=True,
    metavar="HOST:PORT",
    help="Where agents find a server: one for each replica, or one for all. [own address]",
)
@click.option("--identity", metavar="NAME", help="Own name as holder of the lease. [host name]")
@click.option(
    "--lease-namespace",
    metavar="NS",
    help="Where lease and shared CA are. [the pod's, the first --namespace, or billet-system]",
)
@click.option(
    "--lease-duration",
    "lease_duration_s",
    default=15.0,
    show_default=True,
    metavar="SECONDS",
    help="A leader silent for so long is followed by another server.",
)
@click.option(
    "--lease-renew",
    "lease_renew_s",
    default=2.0,
    show_default=True,
    metavar="SECONDS",
    help="Between two renewals, and two looks of a waiting server.",
)
@click.option("--http-port", default=8080, show_default=True, help="Boot files, plain HTTP.")
@click.option("--agent-port", default=8443, show_default=True, help="Agents, TLS.")
@click.option(
    "--ramdisk-dir",
    default="build/ramdisk",
    show_default=True,
    metavar="DIR",
    help="Where vmlinuz and initramfs are.",
)
@click.option(
    "--kernel-argument",
    "kernel_arguments",
    multiple=True,
    metavar="WORD",
    help="One more word on the ramdisk's kernel line; repeatable.",
)
@click.option(
    "--state-names",
    default="seed",
    show_default=True,
    metavar="seed|current",
    help="Write the rest state as ready (seed) or available (current).",
)
@click.option(
    "--boot-timeout",
    "boot_timeout_s",
    default=900.0,
    show_default=True,
    metavar="SECONDS",
    help="From power-on to the first DHCP request.",
)
@click.option(
    "--agent-call-timeout",
    "agent_call_s",
    default=600.0,
    show_default=True,
    metavar="SECONDS",
    help="From the boot script to the agent's first call.",
)
@click.option(
    "--power-poll",
    "power_poll_s",
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="Between two readings of a resting host's power.",
)
@click.option(
    "--retry-base",
    "retry_base_s",
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="To the first retry; doubles up to 600.",
)
@click.option(
    "--max-retries",
    default=10,
    show_default=True,
    metavar="COUNT",
    help="Of registration, inspection, cleaning, power switching; 0: as many as it takes.",
)
@click.option(
    "--max-provisioning-retries",
    default=5,
    show_default=True,
    metavar="COUNT",
    help="Of one image; 0: as many as it takes.",
)
@click.option(
    "--agent-lost",
    "agent_lost_s",
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="How long an agent may be silent.",
)
@click.option(
    "--hand-over-timeout",
    "hand_over_s",
    default=120.0,
    show_default=True,
    metavar="SECONDS",
    help="How long an agent that was told to leave may take before the BMC restarts the machine.",
)
@click.option(
    "--soft-off-timeout",
    "soft_off_s",
    default=180.0,
    show_default=True,
    metavar="SECONDS",
    help="How long a system may take to shut down before its power is cut.",
)
@click.option(
    "--fast-track-s",
    default=settings.Inputs().fast_track_s,
    show_default=True,
    metavar="SECONDS",
    help="How long a host with online: true waits in the ramdisk for its image; 0: not at all.",
)
@click.option(
    "--bmc-timeout",
    "bmc_timeout_s",
    default=5.0,
    show_default=True,
    metavar="SECONDS",
    help="A BMC silent for so long does not answer; a Redfish answer may take 4 times as long.",
)
@click.option("--workers", default=64, show_default=True, help="Hosts worked on at once.")
@click.option(
    "--max-inspecting",
    default=settings.Inputs().max_inspecting,
    show_default=True,
    metavar="N",
    help="Hosts that may be inspected at once; 0: any number.",
)
@click.option(
    "--max-provisioning",
    default=settings.Inputs().max_provisioning,
    show_default=True,
    metavar="N",
    help="Hosts that may be provisioned at once; 0: any number.",
)
@click.option(
    "--max-cleaning",
    default=settings.Inputs().max_cleaning,
    show_default=True,
    metavar="N",
    help="Hosts that may be deprovisioned at once; 0: any number.",
)
@click.option(
    "--image-rate-limit",
    default="0",
    show_default=True,
    metavar="BYTES/S",
    help="Of each machine's image download, like 20M (K, M, G: powers of 1024); 0: none.",
)
@click.option("--redfish-ca", metavar="FILE", help="CAs of Redfish BMCs. [the system's]")
@click.option(
    "--webhook-port",
    default=0,
    show_default=True,
    help="Check BareMetalHosts of a cluster, TLS; 0: off. See billet webhook-manifest.",
)
@click.option(
    "--webhook-host",
    default="0.0.0.0",
    show_default=True,
    metavar="IP",
    help="Where the webhook listens.",
)
@click.option(
    "--webhook-cert", metavar="FILE", help="Its certificate, re-read when it changes. [own CA's]"
)
@click.option("--webhook-key", metavar="FILE", help="The certificate's key.")
@click.option(
    "--webhook-name",
    "webhook_names",
    multiple=True,
    metavar="NAME",
    help="DNS name or address for a certificate of the own CA; repeatable.",
)
@click.option(
    "--metrics-host",
    default="127.0.0.1",
    show_default=True,
    metavar="IP",
    help="Where metrics are served; there is no log-in.",
)
@click.option(
    "--metrics-port", default=9090, show_default=True, help="Prometheus metrics; 0: none."
)
@click.option(
    "--metrics-per-host", is_flag=True, help="Metrics with the label host filled in: many series."
)
@click.option("-v", "--verbose", is_flag=True, help="Debug log.")
def up(*, verbose: bool, **options: object) -> None:
    """Run the server: controller, agent gateway, boot services and, with no kubeconfig, the API.

    \b
    Examples:
      billet up --interface br0
      billet up --interface br0 --dhcp proxy     beside another DHCP server
      billet up --kubeconfig ~/.kube/config --interface br0
      billet up --kubeconfig ~/.kube/config --namespace lab --interface br0
    """
    from billet_server import app

    logging.basicConfig(
        level=logging.DEBUG if verbose else logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    for noisy in ("httpx", "httpcore", "sushy", "urllib3", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    given = {name: value for name, value in options.items() if value is not None}
    in_cluster = "kubeconfig" not in given and "KUBERNETES_SERVICE_HOST" in os.environ
    inputs = settings.Inputs(in_cluster=in_cluster, **given)  # type: ignore[arg-type]
    checked = settings.check(inputs, _interface_address(inputs.interface))
    try:
        asyncio.run(app.run(checked, _announce))
    except PermissionError as error:
        raise ConfigError(
            [f"{error}: run as root, or choose another --state-dir and ports"]
        ) from error


for _param in up.params:
    # By the option's own name, as documented; click would go by the parameter's.
    _param.envvar = "BILLET_UP_" + max(_param.opts, key=len)[2:].replace("-", "_").upper()


def _announce(line: str) -> None:
    click.echo(f"billet: {line}")
    sys.stdout.flush()


def _interface_address(name: str) -> str | None:
    """Return "address/netmask" of an interface (netdevice(7)), None when it has none."""
    if not name:
        return None
    request = struct.pack("256s", name.encode()[:15])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            address = fcntl.ioctl(probe.fileno(), _SIOCGIFADDR, request)[20:24]
            netmask = fcntl.ioctl(probe.fileno(), _SIOCGIFNETMASK, request)[20:24]
        except OSError as error:
            if error.errno == 19:
                raise ConfigError([f"there is no interface {name} (ip link shows them)"]) from error
            return None
    return f"{socket.inet_ntoa(address)}/{socket.inet_ntoa(netmask)}"
