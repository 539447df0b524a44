"""kubectl as a subprocess: the demo and the tests read the API only as a user does."""

import asyncio
import codecs
import contextlib
import json
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

from billet_lab.processes import die_with_parent


def _apart() -> dict[str, Any]:
    """A terminal's Ctrl-C is for the caller, who ends kubectl; a killed caller takes it along."""
    return {"start_new_session": True, "preexec_fn": die_with_parent()}


class KubectlError(Exception):
    """kubectl failed; the message holds its arguments and what it printed."""


class Kubectl:
    """One kubeconfig, one namespace by default; ``program`` picks the kubectl."""

    def __init__(self, kubeconfig: Path, namespace: str, program: str = "kubectl") -> None:
        self._base = (program, f"--kubeconfig={kubeconfig}")
        self._namespace = namespace

    async def run(self, *args: str, stdin: str | None = None, deadline_s: float = 30.0) -> str:
        """Return standard output. Raises KubectlError."""
        process = await asyncio.create_subprocess_exec(
            *self._base,
            f"--namespace={self._namespace}",
            *args,
            stdin=asyncio.subprocess.PIPE if stdin is not None else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            **_apart(),
        )
        try:
            async with asyncio.timeout(deadline_s):
                out, err = await process.communicate(stdin.encode() if stdin is not None else None)
        except TimeoutError as error:
            text = f"kubectl {' '.join(args)}: no answer within {deadline_s:.0f} s"
            raise KubectlError(text) from error
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode:
            raise KubectlError(f"kubectl {' '.join(args)}: {err.decode().strip()}")
        return out.decode()

    async def json(self, *args: str) -> Any:
        """Return the parsed output of a command with ``-o json``."""
        return json.loads(await self.run(*args, "-o", "json"))

    async def watch(self, kind: str, name: str = "") -> AsyncGenerator[dict[str, Any]]:
        """Yield the objects of a kind as they are and at each change, until kubectl ends.

        One of a name is watched as a list of one: `kubectl get KIND NAME -w` gets the object,
        then drops the watch's first event, and with it a change that came in between.
        """
        chosen = [f"--field-selector=metadata.name={name}"] if name else []
        async with contextlib.aclosing(
            self._follow("get", kind, *chosen, "-w", "-o", "json")
        ) as it:
            async for obj in it:
                yield obj

    async def watch_since(self, path: str, version: str) -> AsyncGenerator[dict[str, Any]]:
        """Yield the watch events of a collection after a resource version, until the API ends it.

        `kubectl get -w` begins with a list, made when kubectl is up: what an object was before
        is not told. An ERROR event means that the version is too old to go on from.
        """
        query = f"{path}?watch=true&resourceVersion={version}"
        async with contextlib.aclosing(self._follow("get", "--raw", query)) as it:
            async for event in it:
                yield event

    async def _follow(self, *args: str) -> AsyncGenerator[dict[str, Any]]:
        """Yield the JSON documents that a kubectl prints, until it ends."""
        process = await asyncio.create_subprocess_exec(
            *self._base,
            f"--namespace={self._namespace}",
            *args,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            **_apart(),
        )
        assert process.stdout is not None
        decoder, text = json.JSONDecoder(), ""
        # A chunk may end inside a character.
        characters = codecs.getincrementaldecoder("utf-8")()
        try:
            while chunk := await process.stdout.read(65536):
                text = (text + characters.decode(chunk)).lstrip()
                while text:
                    try:
                        obj, end = decoder.raw_decode(text)
                    except ValueError:
                        break
                    text = text[end:].lstrip()
                    yield obj
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()
