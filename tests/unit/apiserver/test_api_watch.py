"""Watches: order, scope, selectors, old versions, bookmarks, slow readers, the end."""

import asyncio
import json

import pytest

from billet_server.apiserver import ApiServer
from billet_server.apiserver.definitions import Definition
from billet_server.apiserver.lists import parse_scope
from billet_server.apiserver.registry import Resource
from billet_server.apiserver.store import Halves, Key, Put, Store
from billet_server.apiserver.stream import Renderers, WatchStream
from billet_server.apiserver.target import ListQuery
from billet_server.apiserver.watch import MAX_QUEUED, Event, Hub
from billet_server.errors import ConfigError
from billet_server.ports import CONFIG_MAP

ALL_MAPS = "/api/v1/configmaps"


def brief(event):
    meta = event["object"]["metadata"]
    return event["type"], meta.get("name", meta["resourceVersion"])


async def test_a_watch_without_version_begins_with_what_is_there(client, make_config_map):
    await client.make(client.config_maps, make_config_map("a"))
    async with client.watch(f"{client.config_maps}?watch=true") as following:
        assert brief(await following()) == ("ADDED", "a")
        await client.make(client.config_maps, make_config_map("b"))
        assert brief(await following()) == ("ADDED", "b")


async def test_a_watch_from_a_version_tells_what_came_after_it(client, make_config_map):
    made = await client.make(client.config_maps, make_config_map("a"))
    path = f"{client.config_maps}/a"
    await client.patch(path, {"data": {"x": "1"}})
    await client("DELETE", path)
    version = made["metadata"]["resourceVersion"]
    async with client.watch(f"{ALL_MAPS}?watch=1&resourceVersion={version}") as following:
        modified, deleted = await following(), await following()
        assert (modified["type"], deleted["type"]) == ("MODIFIED", "DELETED")
        versions = [int(e["object"]["metadata"]["resourceVersion"]) for e in (modified, deleted)]
        assert int(version) < versions[0] < versions[1]
        assert deleted["object"]["data"] == {"a": "b", "x": "1"}


async def test_a_watch_sees_only_its_kind_namespace_and_name(client, make_config_map):
    await client.make("/api/v1/namespaces", {"metadata": {"name": "other"}})
    watches = {
        "all": f"{ALL_MAPS}?watch=1",
        "mine": f"{client.config_maps}?watch=1",
        "named": f"{client.config_maps}?watch=1&fieldSelector=metadata.name%3Db",
        "single": f"{client.config_maps}/b?watch=1",
        "secrets": f"{client.secrets}?watch=1",
    }
    seen = {name: [] for name in watches}

    expected = {
        "all": ["a", "b", "c"],
        "mine": ["b", "c"],
        "named": ["b"],
        "single": ["b"],
        "secrets": ["s"],
    }
    connected = 0

    async def collect(name):
        nonlocal connected
        async with client.watch(watches[name]) as following:
            connected += 1
            while event := await following():
                seen[name].append(brief(event)[1])

    tasks = [asyncio.create_task(collect(name)) for name in watches]
    while connected < len(watches):
        await asyncio.sleep(0.01)
    await client.make("/api/v1/namespaces/other/configmaps", make_config_map("a"))
    await client.make(client.config_maps, make_config_map("b"))
    await client.make(client.config_maps, make_config_map("c"))
    await client.make(client.secrets, {"metadata": {"name": "s"}})
    for _ in range(500):
        if seen == expected:
            break
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)  # time for what must not come
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert seen == expected


async def test_labels_decide_when_objects_come_and_go(client, make_config_map):
    path = f"{client.config_maps}/a"
    async with client.watch(f"{client.config_maps}?watch=1&labelSelector=x%3D1") as following:
        await client.make(client.config_maps, make_config_map("a"))
        for labels in ({"x": "1"}, {"y": "1"}, {"x": "2"}, {"x": "1"}):
            await client.patch(path, {"metadata": {"labels": labels}})
        await client("DELETE", path)
        kinds = [brief(await following()) for _ in range(5)]
    assert [kind for kind, _ in kinds] == ["ADDED", "MODIFIED", "DELETED", "ADDED", "DELETED"]


async def test_a_version_that_is_gone_is_an_error_event(client, make_config_map):
    for name in ("a", "b", "c"):
        await client.make(client.config_maps, make_config_map(name))
    await client.server.compact()
    for version in ("1", "99999"):
        async with client.watch(f"{ALL_MAPS}?watch=1&resourceVersion={version}") as following:
            event = await following()
            assert (event["type"], event["object"]["code"]) == ("ERROR", 410)
            assert event["object"]["reason"] == "Expired"
            assert await following() is None


async def test_a_version_that_is_committed_and_not_yet_announced(client, make_config_map):
    """A list may be of such a version; who watches from there must not be told to list again."""
    await client.make(client.config_maps, make_config_map())
    store = client.server._store
    version = store.version
    store.version -= 1  # the writer has committed and is at its next line
    try:
        listed = await client.get(client.config_maps)
        assert listed.json["metadata"]["resourceVersion"] == str(version)
        query = f"resourceVersion={version}"
        assert (await client.get(f"{client.config_maps}?{query}")).status == 200
        async with client.watch(f"{client.config_maps}?watch=1&timeoutSeconds=1&{query}") as event:
            assert await event() is None
    finally:
        store.version = version


async def test_a_watch_ends_in_time_with_a_bookmark(client, make_config_map):
    await client.make(client.config_maps, make_config_map("a"))
    last = (await client.make(client.secrets, {"metadata": {"name": "s"}}))["metadata"]
    query = "watch=1&allowWatchBookmarks=true&timeoutSeconds=1"
    async with client.watch(f"{ALL_MAPS}?{query}") as following:
        assert brief(await following()) == ("ADDED", "a")
        # It is as far as the other resource's write: resuming there skips nothing.
        assert brief(await following()) == ("BOOKMARK", last["resourceVersion"])
        assert await following() is None


async def test_streaming_lists_mark_their_end(client, make_config_map):
    await client.make(client.config_maps, make_config_map("a"))
    query = "watch=1&allowWatchBookmarks=true&sendInitialEvents=true"
    async with client.watch(f"{ALL_MAPS}?{query}&resourceVersionMatch=NotOlderThan") as following:
        assert brief(await following()) == ("ADDED", "a")
        mark = await following()
        annotations = mark["object"]["metadata"]["annotations"]
        assert annotations == {"k8s.io/initial-events-end": "true"}


async def test_tables_are_watched_too(client, make_host):
    accept = "application/json;as=Table;v=v1;g=meta.k8s.io"
    async with client.watch(f"{client.hosts}?watch=1", Accept=accept) as following:
        await client.make(client.hosts, make_host())
        await client.patch(f"{client.hosts}/h1", {"spec": {"online": False}})
        first, second = await following(), await following()
        assert first["object"]["columnDefinitions"][0]["name"] == "Name"
        assert second["object"]["columnDefinitions"] is None
        assert second["object"]["rows"][0]["cells"][0] == "h1"


async def test_a_watcher_that_leaves_is_forgotten(client):
    hub = client.server._hub
    async with client.watch(f"{ALL_MAPS}?watch=1"):
        while not hub._topics:
            await asyncio.sleep(0.01)
    for _ in range(300):
        if not hub._topics:
            break
        await asyncio.sleep(0.01)
    assert not hub._topics


async def test_stopping_the_server_ends_watches(running, connect):
    server = await running()
    client = connect(server)
    async with client.watch(f"{ALL_MAPS}?watch=1&allowWatchBookmarks=true") as following:
        stopping = asyncio.create_task(server.stop())
        assert brief(await following())[0] == "BOOKMARK"
        assert await following() is None
        await stopping
    await client.close()


async def test_watches_resume_over_a_restart(running, connect, make_config_map):
    client = connect(await running())
    made = await client.make(client.config_maps, make_config_map("a"))
    await client.patch(f"{client.config_maps}/a", {"data": {"x": "1"}})
    await client.close()
    client = connect(await running())
    version = made["metadata"]["resourceVersion"]
    async with client.watch(f"{ALL_MAPS}?watch=1&resourceVersion={version}") as following:
        assert brief(await following()) == ("MODIFIED", "a")
    await client.close()


async def test_two_servers_never_share_a_folder(running, tmp_path):
    await running()
    with pytest.raises(ConfigError, match="in use by another Billet server"):
        await ApiServer(tmp_path / "state").start(host="127.0.0.1", port=0)


# --- the stream without HTTP -------------------------------------------------------------------

RESOURCE = Resource(Definition(CONFIG_MAP, "configmap", "ConfigMapList"), None, custom=False)


class World:
    """Store, hub and one watch; ``renderings`` counts how often an object was rendered."""

    def __init__(self, path):
        self.loop = asyncio.get_running_loop()
        self.store = Store(path, lambda c: self.loop.call_soon_threadsafe(self.hub.publish, c))
        self.hub = Hub(self.store.version)
        self.renderings = 0

    async def put(self, name, expect=None):
        key = Key("/configmaps", "", name)
        halves = Halves(b'{"metadata":{"name":"%s","resourceVersion":"' % name.encode(), b'"}}')
        put = Put(key, expect, f"uid-{name}", "{}", (), halves, 0)
        return (await asyncio.wrap_future(self.store.submit(put))).version

    def render(self, body):
        self.renderings += 1
        return body

    def stream(self, **query):
        async def offload(call):
            return await asyncio.to_thread(call)

        asked = ListQuery(watch=True, **query)
        return WatchStream(
            self.store,
            self.hub,
            parse_scope(RESOURCE, None, asked),
            asked,
            renderers=Renderers("", self.render, self.render),
            offload=offload,
            bookmark_every_s=0.2,
        ).chunks()


@pytest.fixture
async def world(tmp_path):
    made = World(tmp_path / "o.sqlite")
    yield made
    await asyncio.to_thread(made.store.close)


def parse(chunk):
    return [brief(json.loads(line)) for line in chunk.splitlines()]


async def test_a_slow_watcher_goes_on_from_the_log(world):
    await world.put("start")
    stream = world.stream()
    seen = parse(await anext(stream))
    count = MAX_QUEUED + 500
    versions = await asyncio.gather(*(world.put(f"n{number}") for number in range(count)))
    while len(seen) < count + 1:
        seen += parse(await anext(stream))
    assert seen == [("ADDED", "start")] + [
        ("ADDED", f"n{number}") for _, number in sorted(zip(versions, range(count), strict=True))
    ]
    await stream.aclose()


async def test_an_event_is_rendered_once_for_all_watchers(world):
    start = await world.put("start")
    streams = [world.stream(version=str(start)) for _ in range(20)]
    pending = [asyncio.ensure_future(anext(stream)) for stream in streams]
    await asyncio.gather(*pending)  # each is through with the log
    waiting = [asyncio.ensure_future(anext(stream)) for stream in streams]
    await asyncio.sleep(0.1)
    for name in ("a", "b", "c"):
        await world.put(name)
    lines = []
    for stream, first in zip(streams, waiting, strict=True):
        text = await first
        while text.count(b"\n") < 3:
            text += await anext(stream)
        lines.append(text)
    assert len(set(lines)) == 1
    # The first line of a stream may differ (a Table's columns), so it is rendered for each.
    assert world.renderings == len(streams) + 2
    for stream in streams:
        await stream.aclose()


async def test_bookmarks_never_overtake_events(world):
    """Resuming at any bookmark must miss nothing, however writes and bookmarks fall together."""
    last = await world.put("start")
    stream = world.stream(version=str(last), bookmarks=True)

    async def write():
        for number in range(300):
            await world.put(f"n{number}")
            await asyncio.sleep(0.002)

    writing = asyncio.create_task(write())
    told, bookmarks = 0, 0
    async for chunk in stream:
        for line in chunk.splitlines():
            event = json.loads(line)
            version = int(event["object"]["metadata"]["resourceVersion"])
            if event["type"] == "BOOKMARK":
                bookmarks += 1
                assert version == told + last
            else:
                told += 1
                assert version == told + last
        if told == 300 and bookmarks > 2:
            break
    await stream.aclose()
    await writing


async def test_fan_out_touches_only_those_concerned(world):
    everyone = [world.hub.subscribe("/secrets") for _ in range(3)]
    mine = world.hub.subscribe("/configmaps", "", "a")
    other = world.hub.subscribe("/configmaps", "", "b")
    await world.put("a")
    await asyncio.sleep(0)
    assert [type(event) for event in mine.take()] == [Event]
    assert other.is_idle
    assert all(subscription.is_idle for subscription in everyone)
    world.hub.unsubscribe(mine)
    await world.put("a", 2)
    await asyncio.sleep(0)
    assert mine.is_idle
