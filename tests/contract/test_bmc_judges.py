"""Outside judges: ipmitool of the simulated IPMI BMC, sushy-emulator of the Redfish driver."""

import asyncio
import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time

import pytest

from billet_server.bmc.pacing import Pace
from billet_server.bmc.registry import BmcRegistry
from billet_server.core.terms import BootDevice, BootMode, Credentials, PowerState, Secret
from billet_server.errors import BmcAuthFailed
from billet_server.ports import BmcTarget
from contract.bmc_worlds import PASSWORD, Simulator

needs_ipmitool = pytest.mark.skipif(not shutil.which("ipmitool"), reason="no ipmitool here")


@pytest.fixture(scope="module")
def ipmi_simulator():
    simulator = Simulator("ipmi")
    yield simulator
    assert simulator.remove() == 0


def run(command, environment):
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, timeout=60, check=False
    )
    return done.returncode, done.stdout + done.stderr


class Ipmitool:
    def __init__(self, simulator):
        self.simulator = simulator

    def run(self, *words, user="admin", password=PASSWORD, cipher="3"):
        # -E: the password comes from the environment, not from the command line
        command = ["ipmitool", "-I", "lanplus", "-H", "127.0.0.1", "-p", str(self.simulator.port),
                   "-U", user, "-E", "-C", cipher, "-N", "1", "-R", "2", *words]  # fmt: skip
        environment = {**os.environ, "IPMI_PASSWORD": password}
        return run(command, environment)

    def must(self, *words):
        code, output = self.run(*words)
        assert code == 0, output
        return output


@pytest.fixture
def ipmitool(ipmi_simulator):
    ipmi_simulator.order("reset")
    return Ipmitool(ipmi_simulator)


@needs_ipmitool
def test_ipmitool_reads_and_changes_power(ipmitool):
    assert "System Power         : off" in ipmitool.must("chassis", "status")
    ipmitool.must("chassis", "power", "on")
    assert "is on" in ipmitool.must("chassis", "power", "status")
    ipmitool.must("chassis", "power", "cycle")
    ipmitool.must("chassis", "power", "reset")
    ipmitool.must("chassis", "power", "soft")
    assert "is off" in ipmitool.must("chassis", "power", "status")
    code, output = ipmitool.run("chassis", "power", "cycle")
    assert code != 0
    assert "not supported in present state" in output


@needs_ipmitool
def test_ipmitool_finds_the_cipher_suite_by_itself(ipmitool):
    environment = {**os.environ, "IPMI_PASSWORD": PASSWORD}
    command = ["ipmitool", "-I", "lanplus", "-H", "127.0.0.1",
               "-p", str(ipmitool.simulator.port), "-U", "admin", "-E", "mc", "info"]  # fmt: skip
    code, output = run(command, environment)
    assert code == 0, output
    assert "IPMI Version              : 2.0" in output


@needs_ipmitool
def test_ipmitool_sets_boot_devices(ipmitool):
    ipmitool.must("chassis", "bootdev", "pxe", "options=efiboot")
    shown = ipmitool.must("chassis", "bootparam", "get", "5")
    assert "Force PXE" in shown
    assert "BIOS EFI boot" in shown
    assert "only next boot" in shown
    ipmitool.must("chassis", "bootdev", "disk", "options=persistent")
    shown = ipmitool.must("chassis", "bootparam", "get", "5")
    assert "Force Boot from default Hard-Drive" in shown
    assert "all future boots" in shown
    ipmitool.must("chassis", "bootdev", "none")


@needs_ipmitool
@pytest.mark.parametrize(("user", "password"), [("admin", "wrong"), ("nobody", PASSWORD)])
def test_ipmitool_with_wrong_credentials_is_refused(ipmitool, user, password):
    code, output = ipmitool.run("chassis", "status", user=user, password=password)
    assert code != 0
    assert "Unable to establish IPMI v2 / RMCP+ session" in output


@needs_ipmitool
def test_ipmitool_is_told_that_other_cipher_suites_are_not_there(ipmitool):
    code, output = ipmitool.run("chassis", "status", cipher="17")
    assert code != 0
    assert "no matching cipher suite" in output


# The emulator's fake machines take 1 to 11 s at random for each change; 1 s judges as well.
_EMULATOR = """
import random, sys
random.randint = lambda low, high: low
from sushy_tools.emulator.main import main
sys.exit(main())
"""


class Emulator:
    def __init__(self, folder, auth=None):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.port = listener.getsockname()[1]
        (folder / "state").mkdir()
        settings = [
            "SUSHY_EMULATOR_FAKE_DRIVER = True",
            f"SUSHY_EMULATOR_STATE_DIR = {str(folder / 'state')!r}",
        ]
        if auth:
            (folder / "htpasswd").write_text(auth)
            settings.append(f"SUSHY_EMULATOR_AUTH_FILE = {str(folder / 'htpasswd')!r}")
        config = folder / "emulator.conf"
        config.write_text("\n".join(settings) + "\n")
        command = [sys.executable, "-c", _EMULATOR, "--config", str(config),
                   "-i", "127.0.0.1", "-p", str(self.port)]  # fmt: skip
        with (folder / "log").open("w") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
        for _ in range(200):
            with (
                contextlib.suppress(OSError),
                socket.create_connection(("127.0.0.1", self.port), 1),
            ):
                return
            time.sleep(0.05)
        pytest.fail((folder / "log").read_text())

    def remove(self):
        self.process.terminate()
        self.process.wait(10)


@pytest.fixture(scope="module")
def emulator(tmp_path_factory):
    made = Emulator(tmp_path_factory.mktemp("emulator"))
    yield made
    made.remove()


@pytest.fixture
async def registry():
    made = BmcRegistry(pace=Pace(poll_first_s=0.1, poll_most_s=0.2, power_s=15, soft_off_s=15))
    yield made
    await made.close()


def opened(registry, emulator, password="password"):
    address = f"redfish+http://127.0.0.1:{emulator.port}"
    return registry.open(BmcTarget(address, Credentials("admin", Secret(password))))


async def test_sushy_emulator_is_switched_on_and_off(registry, emulator):
    bmc = opened(registry, emulator)
    assert await bmc.power_state() is PowerState.OFF
    await bmc.power_on()
    assert await bmc.power_state() is PowerState.ON
    await bmc.power_off(soft=True)
    await bmc.power_on()
    await bmc.power_off()
    assert await bmc.power_state() is PowerState.OFF


async def test_sushy_emulator_takes_boot_devices(registry, emulator):
    bmc = opened(registry, emulator)
    await bmc.set_boot_device(BootDevice.NETWORK, mode=BootMode.UEFI)
    await bmc.set_boot_device(BootDevice.DISK)
    await bmc.set_boot_device(BootDevice.NETWORK, mode=BootMode.LEGACY)
    await bmc.set_boot_device(BootDevice.NETWORK, persistent=True)


async def test_sushy_emulator_with_passwords_takes_basic_authentication(registry, tmp_path):
    # of "password", by bcrypt with its cheapest cost
    hashed = await asyncio.to_thread(_bcrypt, "password")
    emulator = Emulator(tmp_path, auth=f"admin:{hashed}\n")
    try:
        assert await opened(registry, emulator).power_state() is PowerState.OFF
        with pytest.raises(BmcAuthFailed):
            await opened(registry, emulator, "wrong").power_state()
    finally:
        await asyncio.to_thread(emulator.remove)


def _bcrypt(password):
    bcrypt = pytest.importorskip("bcrypt")
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()
