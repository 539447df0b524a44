"""The BMCs the contract suite runs on: the twin, and simulators in processes of their own."""

import contextlib
import datetime
import ipaddress
import json
import os
import subprocess
import sys
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from billet_server.bmc.pacing import Pace
from billet_server.bmc.registry import BmcRegistry
from billet_server.core.terms import Credentials, PowerState, Secret
from billet_server.memory.bmc import MemoryBmcs, MemoryMachine
from billet_server.ports import BmcTarget

PASSWORD = "correct-horse-20"
PACE = Pace(
    answer_s=0.9,
    read_s=1.2,
    command_s=12,
    power_s=0.8,
    soft_off_s=0.8,
    poll_first_s=0.02,
    poll_most_s=0.1,
    busy_pause_s=0.02,
    idle_s=0.5,
)


class Simulator:
    """``python -m billet_lab.bmc``, its port and its switches."""

    def __init__(self, kind, *options, password=PASSWORD):
        environment = {**os.environ, "BMC_PASSWORD": password}
        command = [sys.executable, "-m", "billet_lab.bmc", kind, *options]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self.port = int(self.process.stdout.readline())

    def order(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def remove(self):
        """End it; it must go by itself when its input ends."""
        self.process.stdin.close()
        try:
            return self.process.wait(10)
        finally:
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()
            self.process.wait()
            self.process.stdout.close()


class SimulatedWorld:
    """A driver's registry and the simulator at the other end."""

    def __init__(self, simulator, scheme, *, ca_file=None, verify=True, pace=PACE):
        self.simulator, self.address = simulator, f"{scheme}://127.0.0.1:{simulator.port}"
        self.bmcs = BmcRegistry(pace=pace, ca_file=ca_file)
        self.verify = verify
        assert simulator.order("reset") == "done"

    def open(self, username="admin", password=PASSWORD, address=None):
        credentials = Credentials(username, Secret(password))
        return self.bmcs.open(BmcTarget(address or self.address, credentials, self.verify))

    def switch(self, setting):
        assert self.simulator.order(setting) == "done"

    def show(self):
        return json.loads(self.simulator.order("show"))

    async def close(self):
        await self.bmcs.close()


class MemoryWorld:
    """The twin, with the simulators' switches."""

    address = "ipmi://192.0.2.1"

    def __init__(self):
        self.machine = MemoryMachine(self.address, "admin", PASSWORD)
        self.bmcs = MemoryBmcs([self.machine], answer_s=0.5, power_s=0.6, soft_off_s=0.6)

    def open(self, username="admin", password=PASSWORD, address=None):
        credentials = Credentials(username, Secret(password))
        return self.bmcs.open(BmcTarget(address or self.address, credentials))

    def switch(self, setting):
        key, _, value = setting.partition("=")
        match key:
            case "bmc_dead":
                self.machine.unreachable = value == "on"
            case "bmc_slow_s":
                self.machine.delay_s = float(value)
            case "ignore_boot_override":
                self.machine.ignores_override = value == "on"

    def show(self):
        words = {"network": "Pxe", "disk": "Hdd"}
        override = self.machine.override
        return {
            "powered_on": self.machine.power is PowerState.ON,
            "override": words[override.device] if override else "None",
            "persistent": bool(override and override.persistent),
            "boots": [words[boot.device] if boot else "None" for boot in self.machine.boots],
        }

    async def close(self):
        await self.bmcs.close()


def write_certificate(folder: Path) -> Path:
    """A self-signed certificate for 127.0.0.1 with its key, in one PEM file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "simulated BMC")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.IPv4Address("127.0.0.1"))]), False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / "bmc.pem"
    encoding, no_password = serialization.Encoding.PEM, serialization.NoEncryption()
    key_form = serialization.PrivateFormat.PKCS8
    path.write_bytes(
        key.private_bytes(encoding, key_form, no_password) + certificate.public_bytes(encoding)
    )
    return path
