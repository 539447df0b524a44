"""The host controller and the Machine controller as one: what a leader does."""

import asyncio

from billet_server.engine.controller import Controller
from billet_server.engine.machines import MachineController


class Reconcilers:
    """Implements `duty.Reconciler`. Hosts do not wait for Machines, nor for their definition."""

    def __init__(self, hosts: Controller, machines: MachineController) -> None:
        self._hosts, self._machines = hosts, machines

    @property
    def synced(self) -> bool:
        """Whether the caches of hosts and Secrets have been filled."""
        return self._hosts.synced

    async def follow(self) -> None:
        """Keep all caches filled, for ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._hosts.follow(), name="follow-hosts")
            group.create_task(self._machines.follow(), name="follow-machines")

    async def work(self) -> None:
        """Reconcile until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._hosts.work(), name="work-hosts")
            group.create_task(self._machines.work(), name="work-machines")
