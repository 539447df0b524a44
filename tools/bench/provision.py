"""How long a machine takes from its registration to the proof that its image runs.

`make bench-provision`: an emulated BIOS machine (two processors, 1 GiB, 8 GB disk) behind an
IPMI BMC is registered with an image of 890 MB of data, a zlib qcow2 of 340 MB. The clock runs from
`kubectl apply` to the line that the booted system's user data writes to its console.
"""

import asyncio
import hashlib
import json
import re
import secrets
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from empty_boot import empty_init_s
from provision_image import image
from rich.console import Console

from billet_lab import console as serial
from billet_lab import demo_manifests as manifests
from billet_lab.demo_story import Ledger, read_view
from billet_lab.lab import Lab
from billet_lab.os_image import render_sums
from billet_lab.server_process import ServerProcess
from billet_lab.specs import Disk, MachineSpec

NAME = "node01"
BUILD = Path("build/bench")
RAMDISK, SYSTEM = Path("build/ramdisk"), Path("build/image/billet-demo.qcow2")
MEMORY_MIB, DISK_BYTES = 1024, 8 << 30
GOAL_S = 90.0
DEADLINE_S = 600.0
_FETCHED = re.compile(r"boot stage initramfs")


async def provision(folder: Path, file: Path) -> dict[str, Any]:
    """Return the figures of one run: seconds in all, by step, and how often it network booted."""
    machine = MachineSpec(name=NAME, memory_mib=MEMORY_MIB, disks=(Disk(size_bytes=DISK_BYTES),))
    async with Lab(folder / "lab", [machine], accel_choice="tcg") as lab:
        server_argv = [sys.executable, "-m", "billet_lab.image_server", str(file.parent)]
        await lab.run_in([*server_argv, lab.host_address, "80"])
        async with ServerProcess(lab, folder, RAMDISK, namespace=manifests.NAMESPACE) as server:
            await server.start()
            return await _story(lab, server, file)


async def _story(lab: Lab, server: ServerProcess, file: Path) -> dict[str, Any]:
    kubectl, machine, ledger = server.kubectl, lab.machines[0], Ledger()
    token = f"billet-token-{secrets.token_hex(8)}"
    await kubectl.run("create", "namespace", manifests.NAMESPACE)
    user_data = f'#cloud-config\nruncmd:\n- [sh, -c, "echo {token} > /dev/ttyS0"]\n'
    text = manifests.render_user_data(NAME, user_data)
    await kubectl.run("apply", "-f", "-", stdin=text)
    url = f"http://{lab.host_address}/images/{file.name}"
    sums = f"http://{lab.host_address}/images/{file.name}.sha256sum"
    patch = manifests.render_image_patch(NAME, url, sums)
    began = time.monotonic()
    async with asyncio.timeout(DEADLINE_S):
        await kubectl.run("apply", "-f", "-", stdin=manifests.render_host(machine))
        body = json.dumps(patch)
        await kubectl.run("patch", "baremetalhost", NAME, "--type=merge", "-p", body)
        async for host in kubectl.watch("baremetalhost", NAME):
            view = read_view(host)
            step = view.step or (host.get("status", {}).get("waiting") or {}).get("cause", "")
            ledger.enter(view.state or "registering", step)
            if view.error:
                raise SystemExit(f"{NAME}: {view.error}")
            if view.state == "provisioned":
                break
        ledger.enter("first boot", "to the proof")
        await serial.wait_for(Path(machine.console_path), token, deadline_s=DEADLINE_S)
    total_s = time.monotonic() - began
    ledger.end()
    log = server.log_path.read_text(errors="replace")
    return {
        "total_s": round(total_s, 1),
        "network_boots": len(_FETCHED.findall(log)),
        "kexec_total_s": None,  # there is no such road yet
        "steps": ledger.step_seconds(),
    }


def main() -> int:
    """Print the figures and write them to build/bench/provision.json."""
    console = Console(highlight=False)
    file = image(SYSTEM, BUILD / "images")
    with file.open("rb") as data:
        digest = hashlib.file_digest(data, "sha256").hexdigest()
    file.with_name(f"{file.name}.sha256sum").write_text(render_sums({file.name: digest}))
    empty_s = empty_init_s(RAMDISK / "vmlinuz")
    with tempfile.TemporaryDirectory(prefix="billet-bench-") as name:
        figures = asyncio.run(provision(Path(name), file))
    figures |= {"empty_init_s": round(empty_s, 1), "image_mb": round(file.stat().st_size / 1e6, 1)}
    BUILD.mkdir(parents=True, exist_ok=True)
    (BUILD / "provision.json").write_text(json.dumps(figures, indent=2) + "\n")
    for step, seconds in figures["steps"].items():
        console.print(f"  {step:<40} {seconds:6.1f} s")
    total, boots = figures["total_s"], figures["network_boots"]
    console.print(f"registered to proof {total:.1f} s (goal {GOAL_S:.0f} s), {boots} network boots")
    console.print(f"a kernel with an empty init, in this run: {empty_s:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
