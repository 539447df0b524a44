"""Taking, renewing and giving back the Lease that decides which server reconciles.

Decisions are `core.lease`; here they are carried out over `ports.KubeApi`, every write guarded
by the version that was read. `Leader.check` is the fence: it is asked right before whatever
changes anything outside, and says no from our own deadline on, which comes before anybody else
may take the Lease, and without a look at the API.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from enum import Enum
from typing import Final

from billet_server import errors
from billet_server.core import lease
from billet_server.ports import LEASE, NAMESPACE, Clock, KubeApi, Object

log = logging.getLogger(__name__)

LEASE_NAME: Final = "billet"
LEAST_PAUSE_S: Final = 0.05
FORBIDDEN: Final = 403
LOST_PAUSE_S: Final = 1.0
"""After the Lease, or its namespace, was deleted."""


class Phase(Enum):
    """What this server is: not known yet, one that waits, the one that acts, or unsure.

    UNSURE: the Lease was ours, could not be renewed in time, and nobody else is known to have it.
    """

    STARTING = "starting"
    STANDBY = "standby"
    LEADING = "leading"
    UNSURE = "unsure"
    ENDED = "ended"


class Leader:
    """One candidate for the Lease ``namespace``/billet; `run` it once."""

    def __init__(
        self,
        api: KubeApi,
        clock: Clock,
        terms: lease.Terms,
        namespace: str,
        *,
        on_phase: Callable[[Phase], None] = lambda _: None,
    ) -> None:
        self._api, self._clock, self._terms, self._namespace = api, clock, terms, namespace
        self._on_phase = on_phase
        self._view = lease.View()
        self._held: lease.Moment | None = None
        self._phase = Phase.STARTING
        self._changed = asyncio.Event()
        self._failing = False
        self._reign = 0

    @property
    def phase(self) -> Phase:
        """What this server is now."""
        return self._phase

    @property
    def leading(self) -> bool:
        """Whether this server may act now."""
        return self._phase is Phase.LEADING and lease.may_act(
            self._held, self._moment(), self._terms
        )

    @property
    def holder(self) -> str:
        """Who holds the Lease as far as known; "" when nobody does."""
        return self._view.record.holder if self._view.record is not None else ""

    @property
    def lease_name(self) -> str:
        """The Lease's namespace and name."""
        return f"{self._namespace}/{LEASE_NAME}"

    def check(self) -> None:
        """Raise NotLeading unless this server may act now; from any thread."""
        if not self.leading:
            raise errors.NotLeading(
                f"server {self._terms.identity} may not act: {self.describe()}", 0, "NotLeading"
            )

    def describe(self) -> str:
        """Say in words what this server is."""
        match self._phase:
            case Phase.LEADING if self.leading:
                return f"leading, with the lease {self.lease_name}"
            case Phase.LEADING | Phase.UNSURE:
                return f"the lease {self.lease_name} could not be renewed in time; trying on"
            case Phase.STANDBY:
                return f"waiting for the lease held by {self.holder} ({self.lease_name})"
            case Phase.ENDED:
                return "stopping"
        return f"asking for the lease {self.lease_name}"

    async def run(self) -> None:
        """Take the Lease when it is free and keep it; for ever. API errors never end it."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch_deadline(), name="lease-deadline")
            while True:
                pause_s = await self._round_safely()
                await self._clock.sleep(max(pause_s, LEAST_PAUSE_S))

    async def lead(self, work: Callable[[], Awaitable[object]]) -> None:
        """Run ``work()`` whenever and as long as this server leads; what it raises ends this."""
        while True:
            await self.until(lambda phase: phase is Phase.LEADING)
            await self._reign_with(work, self._reign)

    async def _reign_with(self, work: Callable[[], Awaitable[object]], reign: int) -> None:
        def is_over(phase: Phase) -> bool:
            return phase is not Phase.LEADING or self._reign != reign

        async with asyncio.TaskGroup() as group:
            working = group.create_task(_run(work), name="leading")
            await self.until(is_over, working)
            working.cancel()

    async def until(
        self, is_so: Callable[[Phase], bool], task: "asyncio.Task[object] | None" = None
    ) -> None:
        """Wait until the phase is such, or ``task`` is done."""
        while not is_so(self._phase) and not (task is not None and task.done()):
            waiter = asyncio.ensure_future(self._changed.wait())
            try:
                await asyncio.wait(
                    {waiter} if task is None else {waiter, task},
                    return_when=asyncio.FIRST_COMPLETED,
                )
            finally:
                waiter.cancel()

    async def release(self) -> None:
        """Give the Lease back, so that another server need not wait; call when all work ended."""
        held, record = self._phase in (Phase.LEADING, Phase.UNSURE), self._view.record
        self._enter(Phase.ENDED)
        if not held or record is None or record.holder != self._terms.identity:
            return
        try:
            await self._write(record, lease.render_release(self._clock.now()))
            log.info("the lease %s is given back", self.lease_name)
        except (errors.ApiError, TimeoutError) as error:
            log.warning("the lease %s is not given back: %s", self.lease_name, error)

    async def _round_safely(self) -> float:
        """Look at the Lease and do what is due; return when to look again."""
        try:
            pause_s = await self._round()
        except (errors.ApiError, errors.ConfigError, TimeoutError) as error:
            if not self._failing:
                words = str(error) or "no answer in time"
                log.warning("the lease %s: %s; trying on", self.lease_name, words)
            self._failing = True
            return min(self._terms.renew_s, 1.0)
        self._failing = False
        return pause_s

    async def _round(self) -> float:
        # A holder renews by the version it wrote last; only a conflict makes it read.
        if self._phase is not Phase.LEADING or self._view.record is None:
            self._see(await self._read())
        decision = lease.decide(self._view, self._terms, self._clock.monotonic())
        if isinstance(decision, lease.Wait):
            self._enter(Phase.STANDBY)
            return min(decision.seconds, self._terms.renew_s)
        sent, spec = self._moment(), lease.render_spec(decision, self._terms, self._clock.now())
        try:
            if isinstance(decision, lease.Create):
                written = await self._create(spec)
            else:
                written = await self._write(decision.record, spec)
        except errors.Conflict:
            await self._look()
            return 0.0
        except errors.NotFound:
            await self._look()
            await ensure_namespace(self._api, self._namespace)
            return LOST_PAUSE_S
        self._see(lease.parse_lease(written))
        self._held = sent
        if lease.may_act(sent, self._moment(), self._terms):
            self._enter(Phase.LEADING)
        return self._terms.renew_s

    async def _look(self) -> None:
        """Read again what was not as thought; somebody else may hold it now."""
        self._see(await self._read())
        after = lease.decide(self._view, self._terms, self._clock.monotonic())
        if isinstance(after, lease.Wait):
            self._enter(Phase.STANDBY)

    async def _read(self) -> lease.Record | None:
        try:
            async with asyncio.timeout(self._terms.act_s / 2):
                return lease.parse_lease(await self._api.get(LEASE, self._namespace, LEASE_NAME))
        except errors.NotFound:
            return None

    async def _create(self, spec: Object) -> Object:
        meta = {"name": LEASE_NAME, "namespace": self._namespace}
        async with asyncio.timeout(self._terms.act_s / 2):
            return await self._api.create(LEASE, {"metadata": meta, "spec": spec})

    async def _write(self, record: lease.Record, spec: Object) -> Object:
        body: Object = {"metadata": {"resourceVersion": record.version}, "spec": spec}
        async with asyncio.timeout(self._terms.act_s / 2):
            return await self._api.patch(LEASE, self._namespace, LEASE_NAME, body)

    def _see(self, record: lease.Record | None) -> None:
        self._view = lease.observe(self._view, record, self._clock.monotonic())

    async def _watch_deadline(self) -> None:
        """Leave the phase LEADING at our own deadline, whatever the API does meanwhile."""
        while True:
            await self.until(lambda phase: phase is Phase.LEADING)
            assert self._held is not None
            left_s = lease.act_left_s(self._held, self._moment(), self._terms)
            if left_s > 0:
                await self._clock.sleep(left_s)
            elif self._phase is Phase.LEADING:
                self._enter(Phase.UNSURE)

    def _enter(self, phase: Phase) -> None:
        if phase is self._phase or self._phase is Phase.ENDED:
            return
        self._phase = phase
        self._reign += phase is Phase.LEADING
        level = logging.WARNING if phase is Phase.UNSURE else logging.INFO
        log.log(level, "%s: %s", self._terms.identity, self.describe())
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
        self._on_phase(phase)

    def _moment(self) -> lease.Moment:
        return lease.Moment(self._clock.monotonic(), self._clock.now().timestamp())


async def ensure_namespace(api: KubeApi, name: str) -> None:
    """Make the namespace of the Lease unless it is there. Raises ConfigError, ApiError."""
    try:
        await api.get(NAMESPACE, "", name)
    except errors.NotFound:
        pass
    except errors.ApiError as error:
        if error.status != FORBIDDEN:
            raise
        return  # a pod need not be allowed to look at the namespace that it is in
    else:
        return
    try:
        await api.create(NAMESPACE, {"metadata": {"name": name}})
    except errors.Conflict:
        return
    except errors.ApiError as error:
        fault = (
            f"the namespace {name} for the lease is not there and could not be made ({error});"
            f" make it (kubectl create namespace {name}) or name one by --lease-namespace"
        )
        raise errors.ConfigError([fault]) from error


async def _run(work: Callable[[], Awaitable[object]]) -> object:
    return await work()
