"""`kubectl explain` tells every field of our kinds, on the embedded API and on a genuine one."""

import asyncio
import os
import re
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from billet_server.apiserver import ApiServer
from billet_server.apiserver.definitions import load_crds

CRDS = {crd["spec"]["names"]["singular"]: crd for crd in load_crds()}
AT_ONCE = 2


def fields_of(schema: dict[str, Any], path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each field under a kind's schema with its path as kubectl takes it."""
    while "items" in schema:
        schema = schema["items"]
    for name, child in schema.get("properties", {}).items():
        yield f"{path}.{name}", child
        yield from fields_of(child, f"{path}.{name}")


@pytest.fixture(params=["embedded", pytest.param("genuine", marks=pytest.mark.cluster)])
async def kubeconfig(request, tmp_path):
    if request.param == "genuine":
        yield request.getfixturevalue("cluster").kubeconfig
    else:
        server = ApiServer(tmp_path / "state")
        await server.start(host="127.0.0.1", port=0)
        yield server.kubeconfig_path
        await server.stop()


@pytest.fixture
def explain(kubeconfig, tmp_path):
    program = shutil.which("kubectl")
    if program is None:
        pytest.skip("no kubectl on the PATH")
    turns = asyncio.Semaphore(AT_ONCE)
    environment = {**os.environ, "KUBECONFIG": str(kubeconfig), "HOME": str(tmp_path)}

    async def run(*args: str) -> str:
        async with turns:
            process = await asyncio.create_subprocess_exec(
                program, "explain", *args, env=environment,
                stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            )  # fmt: skip
            out, err = await process.communicate()
        assert process.returncode == 0, f"kubectl explain {args}: {err.decode()}"
        return out.decode()

    return run


def joined(text: str) -> str:
    """A text as kubectl wraps it, on one line."""
    return " ".join(text.split())


async def until_published(explain, kind):
    """A genuine API server publishes the schema of a new kind a moment after the kind."""
    async with asyncio.timeout(30):
        while True:
            try:
                return await explain(f"{kind}.spec")
            except AssertionError:
                await asyncio.sleep(0.3)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", CRDS)
async def test_every_field_is_told_where_its_object_is_explained(explain, kind):
    await until_published(explain, kind)
    schema = CRDS[kind]["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    fields = [one for one in fields_of(schema, kind) if not one[0].startswith(f"{kind}.metadata")]
    parents = sorted({path.rpartition(".")[0] for path, _ in fields} - {kind})
    texts = dict(zip(parents, await asyncio.gather(*map(explain, parents)), strict=True))
    texts[kind] = await explain(kind)
    missing = []
    for path, field in fields:
        parent, _, name = path.rpartition(".")
        if path in (f"{kind}.apiVersion", f"{kind}.kind"):
            continue  # told in Kubernetes' own words
        pattern = rf"(?ms)^  {name}\t<(\S+)>(.*?)(?=^  (?!enum:)\S|\Z)"
        told = re.search(pattern, texts[parent])
        if told is None or joined(field["description"]) not in joined(told[2]):
            missing.append(path)
    assert len(fields) > 40
    assert missing == []


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("baremetalhost", ["A physical machine: how to reach its management controller"]),
        ("bmh.spec.image.checksum", ["checksum <string>", "Digest of the image file"]),
        ("bmh.spec.image.checksumType", ["ENUM:", "md5", "sha512", "auto"]),
        ("bmhost.spec.rootDeviceHints.deviceName", ["/dev/disk/by-path/ link, exactly."]),
        ("baremetalhosts.status.waiting.cause", ["such as agent or power-off"]),
        ("bmh.status.operationHistory.inspect.end", ["end <string>", "When it ended."]),
        ("hd.spec.hardware.nics.lldp.switchID", ["Chassis identifier of the switch."]),
    ],
)
async def test_a_field_is_explained_by_itself(explain, path, words):
    await until_published(explain, "baremetalhost")
    text = joined(await explain(path))
    for each in words:
        assert each in text


async def test_recursive_explanations_name_every_field(explain):
    await until_published(explain, "baremetalhost")
    text = await explain("baremetalhost", "--recursive")
    schema = CRDS["baremetalhost"]["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    told = re.findall(r"^\s+(\w+)\t<", text, re.MULTILINE)
    for part in ("spec", "status"):
        named = [path.rpartition(".")[2] for path, _ in fields_of(
            schema["properties"][part], part)]  # fmt: skip
        at = told.index(part) + 1
        assert told[at : at + len(named)] == named
