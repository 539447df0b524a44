"""Boot services inside a network namespace: run by test_netboot through ``ip netns exec``.

Argument: JSON with interface, address, mode, state_dir, ramdisk_dir and plans (MAC to "ramdisk"
or to the reason for the disk). Writes a JSON line for every stage seen; ends on end of input.
"""

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

from billet_server.boot.dhcp import DhcpSettings
from billet_server.boot.dnsmasq import Dnsmasq
from billet_server.boot.http import BootHttp
from billet_server.core.bootplan import BootPlan, DiskBoot, RamdiskBoot
from billet_server.core.terms import HostKey


class Directory:
    """Plans from the argument; tells what it sees on standard output."""

    def __init__(self, plans: dict[str, str]) -> None:
        self._plans = plans

    def boot_plan(self, mac: str) -> BootPlan:
        plan = self._plans.get(mac, "this machine is not known here")
        if plan != "ramdisk":
            return DiskBoot(plan)
        return RamdiskBoot(HostKey("metal", "node-1"), "n0nce", ("console=ttyS0", "panic=-1"))

    def boot_seen(self, mac: str, stage: str, detail: str = "") -> None:
        say(mac=mac, stage=stage, detail=detail)


def say(**event: Any) -> None:
    print(json.dumps({"at": time.monotonic(), **event}), flush=True)


async def main(given: dict[str, Any]) -> None:
    directory = Directory(given["plans"])
    settings = DhcpSettings(
        interface=given["interface"],
        server_address=given["address"],
        mode=given["mode"],
        range_start=given["address"].rpartition(".")[0] + ".50",
        range_end=given["address"].rpartition(".")[0] + ".99",
        http_port=given.get("http_port", 8080),
        state_dir=Path(given["state_dir"]),
    )
    http = BootHttp(directory, Path(given["ramdisk_dir"]), b"PEM")
    dnsmasq = Dnsmasq(settings, directory)
    await http.start(given["address"], settings.http_port)
    try:
        await dnsmasq.start()
        say(stage="ready", pid=dnsmasq.pid)
        await asyncio.to_thread(sys.stdin.read)
    finally:
        await dnsmasq.stop()
        await http.stop()


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
