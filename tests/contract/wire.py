"""Requests to a Kubernetes API as they are on the wire, for what no client library shows."""

import asyncio
import contextlib
import json
from typing import NamedTuple

import pytest

from billet_server.kube.config import build_client, read_config

HTTP_WORLDS = ["embedded", pytest.param("genuine", marks=pytest.mark.cluster)]
"""The worlds that answer requests: the twin has no wire."""

TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"
PARTIAL = "application/json;as=PartialObjectMetadata{};v=v1;g=meta.k8s.io"
MERGE = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
APPLY = "application/apply-patch+yaml"


class Answer(NamedTuple):
    """An answer; ``body`` is parsed where it is JSON."""

    status: int
    body: object
    headers: object

    @property
    def message(self):
        return self.body["message"]

    @property
    def names(self):
        return [item["metadata"]["name"] for item in self.body["items"]]

    @property
    def warnings(self):
        return self.headers.get_list("warning")


class Wire:
    """An HTTP client with the kubeconfig's credentials, at work in one namespace."""

    def __init__(self, kubeconfig, namespace):
        self.kubeconfig = kubeconfig
        config = read_config(kubeconfig)
        self.server = config.cluster.server
        self.http = build_client(config, watches=4)
        self.namespace = namespace
        self.core = f"/api/v1/namespaces/{namespace}"
        self.hosts = f"/apis/metal3.io/v1alpha1/namespaces/{namespace}/baremetalhosts"
        self.config_maps, self.secrets = f"{self.core}/configmaps", f"{self.core}/secrets"

    async def ask(self, method, path, body=None, *, accept="application/json", media=None, **query):
        """Send one request; text as it is, anything else as JSON."""
        headers = {"Accept": accept}
        content = body if body is None or isinstance(body, str | bytes) else json.dumps(body)
        if content is not None:
            headers["Content-Type"] = media or "application/json"
        answer = await self.http.request(
            method, path, content=content, headers=headers, params=query
        )
        is_json = answer.headers.get("content-type", "").startswith("application/json")
        try:
            found = json.loads(answer.content) if is_json else answer.text
        except ValueError:  # a watch: one document a line
            found = answer.text
        return Answer(answer.status_code, found, answer.headers)

    async def make(self, path, body):
        """Create, successfully."""
        answer = await self.ask("POST", path, body)
        assert answer.status == 201, answer.body
        return answer.body

    @contextlib.asynccontextmanager
    async def watch(self, path, *, accept="application/json", **query):
        """Yield a function that returns the next event, None at the end."""
        request = self.http.build_request(
            "GET", path, params={"watch": "true", **query}, headers={"Accept": accept}
        )
        response = await self.http.send(request, stream=True)
        try:
            assert response.status_code == 200, await response.aread()
            lines = response.aiter_lines()

            async def following():
                async with asyncio.timeout(20):
                    line = await anext(lines, None)
                return json.loads(line) if line else None

            yield following
        finally:
            await response.aclose()

    async def events(self, path, **query):
        """Return all events of a watch that ends by itself."""
        async with self.watch(path, **query) as following:
            found = []
            while event := await following():
                found.append(event)
            return found

    async def first_event(self, path, **query):
        """Return the first event of a watch; a refusal counts as an ERROR event."""
        async with asyncio.timeout(20):
            while (answer := await self.ask("GET", path, watch="true", **query)).status == 429:
                await asyncio.sleep(0.2)  # just started: its caches are not filled
        if answer.status != 200:
            return {"type": "ERROR", "object": answer.body}
        text = answer.body if isinstance(answer.body, str) else json.dumps(answer.body)
        return json.loads(text.splitlines()[0])

    async def close(self):
        await self.http.aclose()


def host(name="h1", labels=None, **spec):
    return {
        "apiVersion": "metal3.io/v1alpha1",
        "kind": "BareMetalHost",
        "metadata": {"name": name, **({"labels": labels} if labels else {})},
        "spec": {"online": False, **spec},
    }


def config_map(name="c1", labels=None, **metadata):
    metadata |= {"labels": labels} if labels else {}
    return {"metadata": {"name": name, **metadata}, "data": {"a": "b"}}
