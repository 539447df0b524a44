"""Performing effects: the only place where decisions become calls to adapters.

Every effect returns an `Outcome`, whatever happens: adapters' errors become faults here, API
errors pass (they are the engine's own trouble, retried by the queue, never the host's fault).
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from billet_server import errors
from billet_server.core import effects as ask
from billet_server.core.host import FINALIZER, Host
from billet_server.core.images import image_source
from billet_server.core.problems import Fault
from billet_server.core.terms import BootDevice, BootMode, Credentials, PowerState
from billet_server.engine.drive import build_iso
from billet_server.engine.faults import fault_of
from billet_server.engine.hardwaredata import drop_hardware, put_hardware
from billet_server.engine.leftovers import release_secret
from billet_server.engine.secrets import DataFault, GetSecret, config_drive_tree
from billet_server.ports import (
    BARE_METAL_HOST,
    AgentLink,
    Bmc,
    Bmcs,
    BmcTarget,
    KubeApi,
    Object,
)
from billet_wire import Clean, Deploy, HandOver, Inspect, Job

log = logging.getLogger(__name__)

EFFECT_DEADLINE_S: Final = 600.0
"""Longer than any adapter's own deadlines together: it only ends what hangs in spite of them."""


class Performer:
    """Turns effects into calls. ``get_secret(namespace, name)`` reads the Secret cache.

    ``note_written`` is told of a host that goes on after a write, so that the next pass sees it.
    """

    def __init__(
        self,
        api: KubeApi,
        bmcs: Bmcs,
        agents: AgentLink,
        get_secret: GetSecret,
        note_written: Callable[[Object], None] = lambda _: None,
    ) -> None:
        self._api, self._bmcs, self._agents, self._get_secret = api, bmcs, agents, get_secret
        self._note_written = note_written

    async def perform(
        self, effect: ask.Effect, host: Host, credentials: Credentials | None
    ) -> ask.Outcome:
        """Perform one effect. Raises `errors.ApiError` only."""
        # Thousands of hosts are asked for their power every minute.
        level = logging.DEBUG if isinstance(effect, ask.ReadPower) else logging.INFO
        log.log(level, "host %s: %s", host.key, describe(effect))
        try:
            async with asyncio.timeout(EFFECT_DEADLINE_S):
                power = await self._dispatch(effect, host, credentials)
        except errors.Invalid as error:
            if not isinstance(effect, ask.PutHardwareData):
                raise
            text = f"{host.key}: the API did not take the HardwareData object"
            return ask.Outcome(effect, Fault("inventory-refused", text, str(error)))
        except errors.ApiError:
            raise
        except errors.BilletError as error:
            log.warning("host %s: %s failed: %s", host.key, describe(effect), error)
            return ask.Outcome(effect, fault_of(error, host.key))
        except DataFault as error:
            return ask.Outcome(effect, error.fault)
        except TimeoutError:
            text = f"{host.key}: {describe(effect)} did not end within {EFFECT_DEADLINE_S:.0f} s"
            return ask.Outcome(effect, Fault("internal", text))
        return ask.Outcome(effect, None, power)

    async def _dispatch(
        self, effect: ask.Effect, host: Host, credentials: Credentials | None
    ) -> PowerState | None:
        match effect:
            case ask.AddFinalizer():
                await self._set_finalizers(host, [*host.finalizers, FINALIZER])
            case ask.RemoveFinalizer():
                await self._agents.forget(host.uid)
                await drop_hardware(self._api, host.key)
                await release_secret(self._api, host, self._get_secret)
                left = [name for name in host.finalizers if name != FINALIZER]
                await self._set_finalizers(host, left)
            case ask.RemoveAnnotations():
                await self._remove_annotations(host, effect.values)
            case ask.SetArchitecture():
                await self._set_architecture(host, effect.architecture)
            case ask.PutHardwareData():
                await put_hardware(self._api, host, effect.hardware)
            case ask.ForgetAgent():
                await self._agents.forget(host.uid)
            case ask.CancelJob():
                await self._agents.cancel_job(host.uid, effect.job_id)
            case ask.StartInspect():
                await self._agents.run_job(host.uid, Job(effect.job_id, Inspect()))
            case ask.StartClean():
                params = Clean(protect_data=effect.protect_data)
                await self._agents.run_job(host.uid, Job(effect.job_id, params))
            case ask.StartHandOver():
                await self._agents.run_job(
                    host.uid, Job(effect.job_id, HandOver(kexec=effect.kexec))
                )
            case ask.StartDeploy():
                await self._deploy(host, effect)
            case _:
                return await self._at_bmc(
                    effect, self._open(host, credentials), off=not host.spec.disable_power_off
                )
        return None

    def _open(self, host: Host, credentials: Credentials | None) -> Bmc:
        if credentials is None:
            raise errors.BmcAuthFailed("there are no credentials for the BMC")
        bmc = host.spec.bmc
        verify = not bmc.disable_certificate_verification
        mac = host.spec.boot_mac_address.lower()
        return self._bmcs.open(BmcTarget(bmc.address, credentials, verify, mac))

    async def _at_bmc(self, effect: ask.Effect, bmc: Bmc, *, off: bool) -> PowerState:
        match effect:
            case ask.CheckBmc() | ask.ReadPower():
                return await bmc.power_state()
            case ask.PowerOn():
                await bmc.power_on()
                return PowerState.ON
            case ask.PowerOff():
                await _power_off(bmc, soft=effect.soft)
                return PowerState.OFF
            case ask.PowerCycle():
                await _power_cycle(bmc, soft=effect.soft)
                return PowerState.ON
            case ask.NetworkBoot():
                await _boot(bmc, BootDevice.NETWORK, effect.mode, off=off)
                return PowerState.ON
            case ask.RestartFromDisk():
                await _boot(bmc, BootDevice.DISK, effect.mode, off=off)
                return PowerState.ON
            case ask.SetDiskBoot():
                await bmc.set_boot_device(BootDevice.DISK, mode=effect.mode)
                return await bmc.power_state()
        raise AssertionError(effect)

    async def _deploy(self, host: Host, effect: ask.StartDeploy) -> None:
        source = image_source(effect.image, effect.download)
        if isinstance(source, Fault):
            raise DataFault(source)
        tree = config_drive_tree(host, self._get_secret)
        drive = await asyncio.to_thread(build_iso, tree)
        job = Job(
            effect.job_id, Deploy(source, effect.hints, drive, effect.clean, effect.protect_data)
        )
        await self._agents.run_job(host.uid, job)

    async def _set_finalizers(self, host: Host, finalizers: list[str]) -> None:
        meta: Object = {"finalizers": finalizers, "resourceVersion": host.resource_version}
        await self._api.patch(
            BARE_METAL_HOST, host.key.namespace, host.key.name, {"metadata": meta}
        )

    async def _set_architecture(self, host: Host, architecture: str) -> None:
        if host.spec.architecture:
            return
        body: Object = {
            "metadata": {"resourceVersion": host.resource_version},
            "spec": {"architecture": architecture},
        }
        namespace, name = host.key
        self._note_written(await self._api.patch(BARE_METAL_HOST, namespace, name, body))

    async def _remove_annotations(self, host: Host, values: tuple[tuple[str, str], ...]) -> None:
        gone = {key: None for key, value in values if host.annotations.get(key) == value}
        if not gone:
            return
        meta: Object = {"annotations": gone, "resourceVersion": host.resource_version}
        written = await self._api.patch(
            BARE_METAL_HOST, host.key.namespace, host.key.name, {"metadata": meta}
        )
        self._note_written(written)


async def _power_off(bmc: Bmc, *, soft: bool) -> None:
    if soft:
        try:
            await bmc.power_off(soft=True)
            return
        except (errors.BmcUnsupported, errors.BmcRejected) as error:
            log.info("soft power off refused, cutting the power: %s", error)
    await bmc.power_off()


async def _power_cycle(bmc: Bmc, *, soft: bool) -> None:
    if soft:
        try:
            await bmc.power_cycle(soft=True)
            return
        except (errors.BmcUnsupported, errors.BmcRejected) as error:
            log.info("soft restart refused, resetting the machine: %s", error)
    await bmc.power_cycle()


async def _boot(bmc: Bmc, device: BootDevice, mode: BootMode | None, *, off: bool) -> None:
    if not off:
        # disablePowerOff: once off, such a machine may not come on again.
        await bmc.set_boot_device(device, mode=mode)
        await bmc.power_cycle()
        return
    # Else never "cycle": some BMCs drop a one-time boot device on it.
    await bmc.power_off()
    await bmc.set_boot_device(device, mode=mode)
    await bmc.power_on()


def describe(effect: ask.Effect) -> str:
    """Return an effect in words for logs: nothing large, nothing secret."""
    if isinstance(effect, ask.PutHardwareData):
        return "PutHardwareData"
    if isinstance(effect, ask.RemoveAnnotations):
        return f"RemoveAnnotations({', '.join(effect.keys)})"
    if isinstance(effect, ask.StartDeploy):
        return f"StartDeploy({effect.job_id})"
    if isinstance(effect, ask.NetworkBoot):
        return f"NetworkBoot({effect.mode or 'firmware mode as it is'})"
    return str(effect)
