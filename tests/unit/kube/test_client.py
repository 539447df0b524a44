"""The client's side of the wire: requests as sent, answers and streams in every shape.

What an API server means by its answers is the matter of tests/contract/test_kube_api.py.
"""

import asyncio
import json
from contextlib import aclosing

import httpx2
import pytest

from billet_server import errors
from billet_server.kube.client import LightKube
from billet_server.ports import BARE_METAL_HOST, NAMESPACE, SECRET

SERVER = "https://api.example:6443/k8s/clusters/c1"


class Script:
    """Answers requests in turn, and keeps them."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.requests = []

    async def __call__(self, request):
        self.requests.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def connect(*answers, **options):
    script = Script(*answers)
    client = httpx2.AsyncClient(base_url=SERVER, transport=httpx2.MockTransport(script))
    return LightKube(client, SERVER, **options), script


def answer(value, code=200):
    return httpx2.Response(code, json=value)


def obj(name="a", **metadata):
    return {"metadata": {"namespace": "n", "name": name, "resourceVersion": "7", **metadata}}


class Pieces(httpx2.AsyncByteStream):
    def __init__(self, *pieces):
        self.pieces, self.closed = pieces, False

    async def __aiter__(self):
        for piece in self.pieces:
            if isinstance(piece, Exception):
                raise piece
            yield piece

    async def aclose(self):
        self.closed = True


def line(kind, body):
    return json.dumps({"type": kind, "object": body}, ensure_ascii=False).encode() + b"\n"


async def watch(kube):
    async with aclosing(kube.watch(SECRET, "n", resource_version="5")) as events:
        return [event async for event in events]


# --- requests ------------------------------------------------------------------------------


async def test_paths_keep_the_servers_own():
    kube, script = connect(*(answer(obj()) for _ in range(3)))
    await kube.get(BARE_METAL_HOST, "n", "a")
    await kube.get(SECRET, "n", "a b/../c")
    await kube.get(NAMESPACE, "ignored", "n")
    root = b"/k8s/clusters/c1"
    assert [request.url.raw_path for request in script.requests] == [
        root + b"/apis/metal3.io/v1alpha1/namespaces/n/baremetalhosts/a",
        root + b"/api/v1/namespaces/n/secrets/a%20b%2F..%2Fc",
        root + b"/api/v1/namespaces/n",
    ]


@pytest.mark.parametrize("name", ["", ".", ".."])
async def test_names_that_would_be_resolved_away_are_not_sent(name):
    kube, script = connect()
    with pytest.raises(errors.NotFound):
        await kube.get(SECRET, "n", name)
    with pytest.raises(errors.NotFound):
        await kube.delete(SECRET, "n", name)
    assert script.requests == []


async def test_writes():
    kube, script = connect(*(answer(obj()) for _ in range(4)))
    await kube.create(SECRET, {"metadata": {"namespace": "n", "name": "a"}})
    await kube.patch(BARE_METAL_HOST, "n", "a", {"status": {"x": None}}, subresource="status")
    await kube.replace(BARE_METAL_HOST, obj())
    await kube.delete(SECRET, "n", "a", uid="u1")
    sent = [
        (one.method, one.url.path.split("/v1", 1)[1], one.headers["content-type"])
        for one in script.requests
    ]
    assert sent == [
        ("POST", "/namespaces/n/secrets", "application/json"),
        ("PATCH", "alpha1/namespaces/n/baremetalhosts/a/status", "application/merge-patch+json"),
        ("PUT", "alpha1/namespaces/n/baremetalhosts/a", "application/json"),
        ("DELETE", "/namespaces/n/secrets/a", "application/json"),
    ]
    bodies = [json.loads(one.content) for one in script.requests]
    assert (bodies[0]["apiVersion"], bodies[0]["kind"]) == ("v1", "Secret")
    assert bodies[1] == {"status": {"x": None}}
    assert bodies[2]["kind"] == "BareMetalHost"
    assert bodies[3] == {"preconditions": {"uid": "u1"}}


async def test_field_ownership_is_left_out():
    owned = obj(managedFields=[{"manager": "kubectl"}])
    kube, _ = connect(
        answer(owned),
        answer({"metadata": {"resourceVersion": "9"}, "items": [owned]}),
        httpx2.Response(200, stream=Pieces(line("ADDED", owned))),
    )
    assert "managedFields" not in (await kube.get(SECRET, "n", "a"))["metadata"]
    assert "managedFields" not in (await kube.list(SECRET)).items[0]["metadata"]
    assert "managedFields" not in (await watch(kube))[1].object["metadata"]


# --- lists ---------------------------------------------------------------------------------


async def test_a_list_goes_through_its_pages():
    kube, script = connect(
        answer({"metadata": {"resourceVersion": "9", "continue": "c1"}, "items": [obj("a")]}),
        answer({"metadata": {"resourceVersion": "9"}, "items": [obj("b")]}),
        page_objects=1,
    )
    listed = await kube.list(SECRET, labels={"x": "1", "y": "2"})
    assert [one["metadata"]["name"] for one in listed.items] == ["a", "b"]
    assert listed.items[0]["kind"] == "Secret"
    assert listed.resource_version == "9"
    queries = [dict(request.url.params) for request in script.requests]
    assert queries[0] == {"labelSelector": "x=1,y=2", "limit": "1"}
    assert queries[1] == {**queries[0], "continue": "c1"}


async def test_a_list_whose_pages_expire_comes_in_one():
    kube, script = connect(
        answer({"metadata": {"resourceVersion": "9", "continue": "c1"}, "items": [obj("a")]}),
        answer({"reason": "Expired", "message": "the continue parameter is too old"}, 410),
        answer({"metadata": {"resourceVersion": "11"}, "items": None}),
    )
    listed = await kube.list(SECRET)
    assert listed == ([], "11")
    assert dict(script.requests[2].url.params) == {}


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"items": []}', b'{"metadata": 3}'])
async def test_a_list_that_is_none(body):
    kube, _ = connect(httpx2.Response(200, content=body))
    with pytest.raises(errors.Unavailable, match="not JSON"):
        await kube.list(SECRET)


# --- watches -------------------------------------------------------------------------------


async def test_lines_may_come_in_any_pieces_and_hold_any_text():
    new = {**obj(), "data": "one\u2028two\u0085three\x1efour"}
    stream = line("ADDED", new) + line("BOOKMARK", obj(resourceVersion="8")) + b"\n"
    kube, script = connect(
        *(
            httpx2.Response(
                200, stream=Pieces(*(stream[at : at + n] for at in range(0, len(stream), n)))
            )
            for n in (1, 7, 64, len(stream))
        )
    )
    for _ in range(4):
        assert await watch(kube) == [
            ("BOOKMARK", {"metadata": {"resourceVersion": "5"}}),
            ("ADDED", new),
            ("BOOKMARK", {"metadata": {"resourceVersion": "8"}}),
        ]
    query = dict(script.requests[0].url.params)
    assert 300 <= int(query.pop("timeoutSeconds")) < 450
    assert query == {"watch": "true", "allowWatchBookmarks": "true", "resourceVersion": "5"}


@pytest.mark.parametrize(
    ("pieces", "expected", "words"),
    [
        ([line("ERROR", {"code": 410, "message": "too old"})], errors.Gone, "too old"),
        ([line("ERROR", {"code": 500, "message": "oops"})], errors.Unavailable, "oops"),
        ([line("ERROR", {})], errors.Unavailable, "watch secrets"),
        ([b'{"type":"ADDED","obj'], errors.Unavailable, "amid an event"),
        ([b"<html>\n"], errors.Unavailable, "not JSON"),
        ([line("SURPRISE", obj())], errors.ApiError, "SURPRISE"),
        ([httpx2.ReadError("reset")], errors.Unavailable, "reset"),
        ([httpx2.ReadTimeout("")], errors.Unavailable, "in time"),
        ([httpx2.RemoteProtocolError("incomplete")], errors.Unavailable, "incomplete"),
    ],
)
async def test_watches_that_end_badly(pieces, expected, words):
    stream = Pieces(line("ADDED", obj()), *pieces)
    kube, _ = connect(httpx2.Response(200, stream=stream))
    with pytest.raises(expected, match=words):
        await watch(kube)
    assert stream.closed


async def test_a_watch_that_is_refused():
    gone = {"reason": "Expired", "message": "too old resource version", "code": 410}
    kube, _ = connect(answer(gone, 410), httpx2.ConnectError("refused"))
    with pytest.raises(errors.Gone):
        await watch(kube)
    with pytest.raises(errors.Unavailable, match="refused"):
        await watch(kube)


async def test_leaving_a_watch_closes_the_stream():
    stream = Pieces(line("ADDED", obj()), line("ADDED", obj("b")))
    kube, _ = connect(httpx2.Response(200, stream=stream))
    async with aclosing(kube.watch(SECRET, resource_version="5")) as events:
        await anext(events)
        await anext(events)
    assert stream.closed


# --- deadlines and closing -----------------------------------------------------------------


@pytest.mark.looptime
async def test_every_call_has_a_deadline():
    async def silent(request):
        await asyncio.sleep(3600)

    client = httpx2.AsyncClient(base_url=SERVER, transport=httpx2.MockTransport(silent))
    kube = LightKube(client, SERVER)
    started = asyncio.get_running_loop().time()
    for call in (
        kube.get(SECRET, "n", "a"),
        kube.list(SECRET),
        kube.create(SECRET, obj()),
        kube.patch(SECRET, "n", "a", {}),
        kube.replace(SECRET, obj()),
        kube.delete(SECRET, "n", "a"),
        watch(kube),
    ):
        with pytest.raises(errors.Unavailable, match="did not answer in time"):
            await call
    assert asyncio.get_running_loop().time() - started <= 7 * 31


async def test_a_closed_client_is_unavailable():
    kube, _ = connect()
    await kube.close()
    with pytest.raises(errors.Unavailable, match="closed"):
        await kube.get(SECRET, "n", "a")
    with pytest.raises(errors.Unavailable, match="closed"):
        await watch(kube)
