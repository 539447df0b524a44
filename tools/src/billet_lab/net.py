"""The lab's own network: a namespace with loopback, one bridge and a tap per machine.

Nothing is changed in the network of the machine that the lab runs on; no packet of the lab leaves
the namespace. Every function may be repeated.
"""

import asyncio
import ipaddress
import json
from collections.abc import Sequence

BRIDGE = "br0"
_BRIDGE_MAC = "02:b1:11:e7:00:01"
_DEADLINE_S = 20.0
_PACKAGES = {"ip": "iproute2", "nft": "nftables"}


class NetError(Exception):
    """A network tool failed; the message has its command line and its words."""


async def run_tool(*argv: str, stdin: str = "", deadline_s: float = _DEADLINE_S) -> str:
    """Run a tool to its end and return its output; `NetError` when it fails or hangs."""
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    except FileNotFoundError:
        package = _PACKAGES.get(argv[0], argv[0])
        raise NetError(f"there is no program {argv[0]!r}: apt-get install {package}") from None
    try:
        async with asyncio.timeout(deadline_s):
            out, err = await process.communicate(stdin.encode())
    except TimeoutError:
        process.kill()
        await process.wait()
        raise NetError(f"`{' '.join(argv)}` did not end within {deadline_s:g} s") from None
    if process.returncode:
        raise NetError(f"`{' '.join(argv)}` failed: {err.decode(errors='replace').strip()}")
    return out.decode(errors="replace")


async def namespaces() -> set[str]:
    """Names of all network namespaces."""
    return {entry["name"] for entry in json.loads(await run_tool("ip", "-j", "netns") or "[]")}


async def create(namespace: str, bridge_address: str, taps: Sequence[str]) -> None:
    """Make the namespace, its bridge (``172.22.0.1/24``) and its taps, as far as missing."""
    interface = ipaddress.ip_interface(bridge_address)
    if namespace not in await namespaces():
        await run_tool("ip", "netns", "add", namespace)
    links = await _links(namespace)
    lines = ["link set lo up"]
    if BRIDGE not in links:
        # Forwarding starts at once: no spanning tree and no listening or learning delay, so that
        # the first DHCP discover after power-on gets through. No snooping: nobody queries here.
        lines += [
            (
                f"link add {BRIDGE} address {_BRIDGE_MAC} type bridge"
                " stp_state 0 forward_delay 0 mcast_snooping 0"
            ),
            f"link set {BRIDGE} up",
        ]
    lines.append(f"addr replace {interface.with_prefixlen} dev {BRIDGE}")
    for tap in taps:
        if tap not in links:
            lines.append(f"tuntap add dev {tap} mode tap")
        lines += [f"link set {tap} master {BRIDGE}", f"link set {tap} up"]
    await run_tool("ip", "-n", namespace, "-batch", "-", stdin="\n".join(lines) + "\n")


async def remove(namespace: str) -> None:
    """Remove the namespace and with it bridge and taps; nothing when there is none.

    Links of a namespace live as long as a process in it, so end those first (`pids`).
    """
    if namespace in await namespaces():
        await run_tool("ip", "netns", "del", namespace)


async def pids(namespace: str) -> list[int]:
    """Processes in the namespace."""
    if namespace not in await namespaces():
        return []
    return [int(word) for word in (await run_tool("ip", "netns", "pids", namespace)).split()]


async def _links(namespace: str) -> set[str]:
    return {
        link["ifname"] for link in json.loads(await run_tool("ip", "-n", namespace, "-j", "link"))
    }


def render_loss(tap: str, percent: float) -> str:
    """An nftables script that drops this share of frames, each way; 0 drops none."""
    table = f"billet_{tap}"
    # Adding before deleting makes deletion succeed whether or not the table is there (nft(8)).
    clear = f"add table netdev {table}\ndelete table netdev {table}\n"
    if percent <= 0:
        return clear
    rule = f"numgen random mod 10000 < {round(percent * 100)} drop"
    chains = "".join(
        f'  chain {hook} {{ type filter hook {hook} device "{tap}" priority 0; {rule}; }}\n'
        for hook in ("ingress", "egress")
    )
    return f"{clear}table netdev {table} {{\n{chains}}}\n"


async def set_loss(tap: str, percent: float) -> None:
    """Drop a share of the tap's frames in both directions. Runs inside the namespace."""
    await run_tool("nft", "-f", "-", stdin=render_loss(tap, percent))
