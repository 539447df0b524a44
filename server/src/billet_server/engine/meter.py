"""The engine's side of the metrics: what is counted when; names and labels are `core.figures`."""

from collections.abc import Awaitable
from typing import TypeVar

from billet_server import errors
from billet_server.core.bmcaddress import split_scheme
from billet_server.core.capacity import Operation
from billet_server.core.host import Host
from billet_server.core.tally import tally
from billet_server.core.terms import BootDevice, BootMode, HostKey, PowerState
from billet_server.core.turn import Step
from billet_server.engine.census import Census
from billet_server.engine.faults import fault_of
from billet_server.engine.limits import Limits
from billet_server.engine.queue import WorkQueue
from billet_server.ports import Bmc, Bmcs, BmcTarget, Clock, Metrics, Object

T = TypeVar("T")


class Meter:
    """Counts passes, decisions and hosts."""

    def __init__(self, metrics: Metrics, clock: Clock) -> None:
        self._metrics, self._clock = metrics, clock
        self._census = Census(metrics)

    def watch(self, queue: WorkQueue[HostKey], limits: Limits) -> None:
        """Show the queue's length and the places."""
        show = self._metrics.watch
        show("billet_queue_ready", lambda: len(queue))
        show("billet_queue_busy", lambda: queue.busy)
        show("billet_queue_delayed", lambda: queue.delayed)
        for operation in Operation:
            self._metrics.set("billet_places", limits.maxima[operation], operation)
            show("billet_places_in_use", lambda o=operation: limits.in_use(o), operation)  # type: ignore[misc]
            show("billet_places_wanted", lambda o=operation: limits.waiting(o), operation)  # type: ignore[misc]

    def host_changed(self, old: Object | None, new: Object | None) -> None:
        """Count the hosts anew by one change."""
        self._census.changed(old, new)
        if new is None and old is not None:
            meta = old["metadata"]
            self._metrics.forget(meta["namespace"], meta["name"])

    def passed(self, key: HostKey, began_s: float) -> None:
        """Count a pass that began then."""
        self._metrics.add("metal3_reconcile_total", *key)
        self._metrics.observe(
            "billet_reconcile_duration_seconds", self._clock.monotonic() - began_s
        )

    def broke(self, key: HostKey) -> None:
        """Count a pass that the API or a defect ended."""
        self._metrics.add("metal3_reconcile_error_total", *key)

    def decided(self, host: Host, step: Step) -> None:
        """Count what a step does whose status is written."""
        found = tally(host, step)
        for name, labels in found.counts:
            self._metrics.add(name, *labels)
        for name, seconds, labels in found.durations:
            self._metrics.observe(name, seconds, *labels)


class MeteredBmcs:
    """`ports.Bmcs` with a clock beside it."""

    def __init__(self, bmcs: Bmcs, metrics: Metrics, clock: Clock) -> None:
        self._bmcs, self._metrics, self._clock = bmcs, metrics, clock

    def open(self, target: BmcTarget) -> Bmc:
        """Return the target's driver. Raises BmcAddressError."""
        driver, _ = split_scheme(target.address)
        return _MeteredBmc(self._bmcs.open(target), self._metrics, self._clock, driver)

    async def close(self) -> None:
        """Close every driver and pool."""
        await self._bmcs.close()


class _MeteredBmc:
    def __init__(self, bmc: Bmc, metrics: Metrics, clock: Clock, driver: str) -> None:
        self._bmc, self._metrics, self._clock, self._driver = bmc, metrics, clock, driver

    async def power_state(self) -> PowerState:
        return await self._timed("power_state", self._bmc.power_state())

    async def power_on(self) -> None:
        await self._timed("power_on", self._bmc.power_on())

    async def power_off(self, *, soft: bool = False) -> None:
        name = "power_off_soft" if soft else "power_off"
        await self._timed(name, self._bmc.power_off(soft=soft))

    async def power_cycle(self, *, soft: bool = False) -> None:
        name = "power_cycle_soft" if soft else "power_cycle"
        await self._timed(name, self._bmc.power_cycle(soft=soft))

    async def set_boot_device(
        self, device: BootDevice, *, mode: BootMode | None = None, persistent: bool = False
    ) -> None:
        call = self._bmc.set_boot_device(device, mode=mode, persistent=persistent)
        await self._timed("set_boot_device", call)

    async def close(self) -> None:
        await self._bmc.close()

    async def _timed(self, name: str, call: Awaitable[T]) -> T:
        began_s = self._clock.monotonic()
        try:
            return await call
        except errors.BilletError as error:
            problem = fault_of(error, HostKey("", "")).problem
            self._metrics.add("billet_bmc_call_errors_total", self._driver, problem)
            raise
        finally:
            taken_s = self._clock.monotonic() - began_s
            self._metrics.observe("billet_bmc_call_duration_seconds", taken_s, self._driver, name)
