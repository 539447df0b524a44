"""`--wait`: follows hosts to the result of a change, with a line at each turn on the way."""

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

from billet_server.cli.goals import Goal, Verdict, judge
from billet_server.cli.status import follow_hosts
from billet_server.cli.status_view import summary_line
from billet_server.core.host import Host, parse_host
from billet_server.core.terms import HostKey
from billet_server.ports import KubeApi, Object

GRACE_S = 5.0
"""How long a server may take to notice a change to a host that waits for one."""
TICK_S = 0.2


class Awaited(NamedTuple):
    """A host as it was when it was changed, and what it is to become."""

    before: Host
    goal: Goal


class Result(NamedTuple):
    """How the waiting for one host ended. ``kind``: done, failed, or timeout."""

    kind: str
    words: str


async def await_hosts(
    api: KubeApi,
    awaited: Mapping[HostKey, Awaited],
    timeout_s: float,
    say: Callable[[str], None],
    *,
    grace_s: float = GRACE_S,
) -> dict[HostKey, Result]:
    """Return how it ended for each host, within ``timeout_s``; outlives API outages."""
    waiter = _Waiter(awaited, say, grace_s)
    namespaces = {key.namespace for key in awaited}
    followers = [
        asyncio.create_task(follow_hosts(api, namespace, None, waiter.sees(namespace)))
        for namespace in namespaces
    ]
    try:
        end = time.monotonic() + timeout_s
        while waiter.pending and time.monotonic() < end:
            waiter.give_up_stuck()
            await asyncio.wait(followers, timeout=TICK_S, return_when=asyncio.FIRST_COMPLETED)
            for follower in followers:
                if follower.done():  # only an error ends it
                    follower.result()
    finally:
        for follower in followers:
            follower.cancel()
        await asyncio.gather(*followers, return_exceptions=True)
    waiter.time_out(timeout_s)
    return waiter.results


class _Waiter:
    def __init__(
        self, awaited: Mapping[HostKey, Awaited], say: Callable[[str], None], grace_s: float
    ) -> None:
        self.pending = dict(awaited)
        self.results: dict[HostKey, Result] = {}
        self._say, self._grace_s = say, grace_s
        self._said: dict[HostKey, str] = {}
        self._stuck: dict[HostKey, tuple[float, str]] = {}

    def sees(self, namespace: str) -> Callable[[list[Object], str], None]:
        """Return what takes in all hosts of a namespace at each change."""

        def show(found: list[Object], remark: str) -> None:
            if remark:
                self._say(remark)
                return
            hosts = {host.key: host for host in map(parse_host, self._ours(found))}
            for key in [key for key in self.pending if key.namespace == namespace]:
                self._look(key, hosts.get(key))

        return show

    def _ours(self, found: list[Object]) -> list[Object]:
        return [
            obj
            for obj in found
            if HostKey(obj["metadata"]["namespace"], obj["metadata"]["name"]) in self.pending
        ]

    def _look(self, key: HostKey, host: Host | None) -> None:
        if host is None:
            self._end(key, Result("failed", "the host was deleted"))
            return
        line = summary_line(host)
        if self._said.get(key) != line:
            self._said[key] = line
            self._say(line)
        verdict = judge(self.pending[key].goal, self.pending[key].before, host)
        self._take(key, verdict)

    def _take(self, key: HostKey, verdict: Verdict) -> None:
        if verdict.kind != "stuck":
            self._stuck.pop(key, None)
        if verdict.kind in ("done", "failed"):
            self._end(key, Result(verdict.kind, verdict.words))
        elif verdict.kind == "stuck":
            since = self._stuck.get(key, (time.monotonic(), ""))[0]
            self._stuck[key] = since, verdict.words

    def give_up_stuck(self) -> None:
        """End the waiting for hosts which go on only when a person changes something."""
        for key, (since, words) in list(self._stuck.items()):
            if time.monotonic() - since > self._grace_s:
                self._end(key, Result("failed", words))

    def time_out(self, timeout_s: float) -> None:
        """End the waiting for all others."""
        for key in list(self.pending):
            now = self._said.get(key, "the API did not say").removeprefix(f"{key}  ")
            words = f"not within {timeout_s:.0f} s; it goes on without us; last seen: {now}"
            self._end(key, Result("timeout", words))

    def _end(self, key: HostKey, result: Result) -> None:
        self._stuck.pop(key, None)
        del self.pending[key]
        self.results[key] = result
        self._say(f"{key}: {result.kind}: {result.words}")
