"""Whether KVM can be trusted here.

``/dev/kvm`` may exist and open while guests hang in it. A boot sector proves nothing: real mode
runs where the first steps in protected and long mode hang. So the probe boots what labs boot: a
Linux kernel if one is at hand (it has to get as far as looking for its root disk), else OVMF
(it has to get as far as choosing a boot device). Anything but proof means TCG.
"""

import asyncio
import contextlib
import os
import shutil
import signal
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from billet_lab import console
from billet_lab.processes import die_with_parent
from billet_lab.qemu_args import OVMF_VARS, QEMU, accel_args, firmware_args
from billet_lab.specs import Accel

AccelChoice = Literal["auto", "kvm", "tcg"]
KVM = Path("/dev/kvm")
_DEADLINE_S = 6.0
_KERNEL_PROOF = b"Unable to mount root fs"
_FIRMWARE_PROOF = b"BdsDxe:"


async def choose(
    choice: AccelChoice, *, kernels: Iterable[Path] = (), cache: Path | None = None
) -> tuple[Accel, str]:
    """The accelerator to use and why, in words. ``cache`` keeps the answer of one run."""
    if choice != "auto":
        return choice, "as asked"
    if cache is not None and cache.exists():
        return ("kvm" if cache.read_text().strip() == "kvm" else "tcg"), "as probed before"
    accel, why = await probe(kernels)
    if cache is not None:
        cache.parent.mkdir(parents=True, exist_ok=True)
        cache.write_text(accel)
    return accel, why


async def probe(
    kernels: Iterable[Path] = (), *, accel: Accel = "kvm", deadline_s: float = _DEADLINE_S
) -> tuple[Accel, str]:
    """Boot under ``accel`` and look at the serial console; ("tcg", reason) when it fails."""
    if accel == "kvm" and not os.access(KVM, os.R_OK | os.W_OK):
        return "tcg", f"{KVM} is not there or not ours to use"
    with tempfile.TemporaryDirectory(prefix="billet-probe-") as name:
        directory = Path(name)
        kernel = next((path for path in kernels if path.is_file()), None)
        argv, proof, guest = _probe_boot(directory, kernel)
        serial = directory / "serial"
        argv = [*argv, *accel_args(accel), "-serial", f"file:{serial}"]
        failure = await _failure(argv, serial, proof.decode(), deadline_s)
        if failure is None:
            return accel, f"{guest} boots under {accel}"
        return "tcg", f"{guest} does not boot under {accel}: {failure}"


def known_kernels(extra: Sequence[Path] = ()) -> list[Path]:
    """Linux kernels at hand: those given, then the machine's own."""
    return [*extra, *sorted(Path("/boot").glob("vmlinuz-*"))]


def _probe_boot(directory: Path, kernel: Path | None) -> tuple[list[str], bytes, str]:
    common = [QEMU, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-m", "512"]
    if kernel is not None:
        line = "console=ttyS0 earlyprintk=ttyS0 panic=-1"
        boot = ["-machine", "q35", "-kernel", str(kernel), "-append", line]
        return [*common, *boot], _KERNEL_PROOF, f"Linux ({kernel})"
    nvram = directory / "nvram"
    shutil.copyfile(OVMF_VARS, nvram)
    return [*common, *firmware_args("uefi", nvram)], _FIRMWARE_PROOF, "OVMF"


async def _failure(argv: Sequence[str], serial: Path, proof: str, deadline_s: float) -> str | None:
    """None once the serial console shows ``proof``, else what happened instead."""
    words = serial.with_name("stderr")
    with words.open("wb") as stderr:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=stderr,
            preexec_fn=die_with_parent(signal.SIGKILL),
        )
    ended = asyncio.create_task(process.wait())
    try:
        async with asyncio.timeout(deadline_s):
            while True:
                over = ended.done()
                if serial.exists() and proof in console.plain(serial.read_bytes()):
                    return None
                if over:
                    said = console.tail(words, lines=1)
                    return f"QEMU ended with code {process.returncode}: {said or 'no words'}"
                await asyncio.sleep(0.05)
    except TimeoutError:
        return f"it showed nothing of the kind within {deadline_s:g} s"
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await ended
