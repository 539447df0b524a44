"""Scenarios: tests that run side by side against one server, on each Kubernetes API in turn.

A scenario is a coroutine with a user and a way to plug machines in. When the first of them is
asked for, all that were chosen start, so many at a time; each test then waits for its own
scenario and has its failure.
"""

import asyncio
import contextlib
import inspect

import pytest

from clusters import new_namespace
from contract.bmc_worlds import PASSWORD
from server_rig import Machine, Server, world

PLACES = 6
"""Scenarios at a time: each is a user's kubectl and a machine, the server is one for all."""
DEADLINE_S = 110.0


def scenario(play):
    """Make a coroutine ``(user, machine, **parameters)`` a test on both APIs."""
    parameters = list(inspect.signature(play).parameters.values())[2:]
    asked = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in ("request", "stage")
    ]

    async def test(*, request, stage, **_):
        await stage.outcome(request.node.nodeid)

    test.__signature__ = inspect.Signature(
        [*asked, *(each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in parameters)]
    )
    test.__name__, test.__qualname__ = play.__name__, play.__qualname__
    test.__doc__, test.__module__ = play.__doc__, play.__module__
    test.scenario = play
    for mark in getattr(play, "pytestmark", ()):
        test = getattr(pytest.mark, mark.name)(*mark.args, **mark.kwargs)(test)
    return pytest.mark.asyncio(loop_scope="session")(test)


class Stage:
    """A server on one API and the scenarios that play there."""

    def __init__(self, folder, cluster, simulators, items):
        self._cluster, self._simulators = cluster, simulators
        self._plays = {
            item.nodeid: (item.function.scenario, new_namespace(), _parameters(item))
            for item in items
        }
        # The first is where the server keeps what is its own, such as its Lease.
        self._home = new_namespace()
        namespaces = [self._home, *(namespace for _, namespace, _ in self._plays.values())]
        kubeconfig = cluster.kubeconfig if cluster else None
        self.server = Server(folder, kubeconfig, namespaces=namespaces)
        self._places = asyncio.Semaphore(PLACES)
        self._tasks = {}
        self._busy = set()

    async def open(self):
        """Start the server and all scenarios."""
        await self.server.restart()
        for key, play in self._plays.items():
            self._tasks[key] = asyncio.create_task(self._play(*play), name=key)

    async def outcome(self, key):
        """Wait for a scenario; raises what it raised."""
        await self._tasks[key]

    async def close(self):
        """End what still runs, then the server, which must have nothing to regret."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        status = await asyncio.to_thread(self.server.stop)
        if self._cluster:
            self._cluster.kubectl("delete", "namespace", self._home, "--wait=false")
        text = self.server.text()
        assert status == 0, text
        at = text.find("Traceback")
        assert at < 0, text[max(0, at - 500) : at + 5000]
        assert PASSWORD not in text

    async def _play(self, play, namespace, parameters):
        async with (
            self._places,
            asyncio.timeout(DEADLINE_S),
            contextlib.AsyncExitStack() as taken,
            world(self.server, namespace) as user,
        ):

            def plug_in(kind="ipmi", **more):
                simulator = self._take(kind, taken)
                return user.plug_in(Machine(simulator, kind, user.server, **more))

            await play(user, plug_in, **parameters)

    def _take(self, kind, taken):
        """Return a simulated BMC that no other scenario has."""
        number = 1
        while (kind, number) in self._busy:
            number += 1
        self._busy.add((kind, number))
        taken.callback(self._busy.discard, (kind, number))
        return self._simulators(kind, number)


def _parameters(item):
    return {name: value for name, value in item.callspec.params.items() if name != "stage"}


def is_scenario(item):
    """Whether a collected test stands for a scenario."""
    return hasattr(getattr(item, "function", None), "scenario")


def chosen(request):
    """Return the items of all scenarios on one API that are to be run."""
    return [
        item
        for item in request.session.items
        if is_scenario(item) and item.callspec.params["stage"] == request.param
    ]
