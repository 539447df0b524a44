"""An image server with every fault, run inside a lab's network: ``vm_images.py DIR HOST PORT``.

``/ok/NAME`` serves DIR/NAME, ``/slow/RATE/NAME`` at RATE MiB a second, ``/reset/NAME`` resets the
connection half-way, ``/short/NAME`` closes it half-way, ``/loop/N`` redirects for ever. There are
no validators in its answers, so that a client cannot go on where it was; but for ``/cut/N/NAME``,
which knows ranges, has a tag, and resets the connection after each N-th part of the file.
``/served/NAME`` tells as JSON how many bytes of the file's body were sent in how many answers.
"""

import asyncio
import socket
import struct
import sys
from pathlib import Path

from aiohttp import web

CHUNK = 256 * 1024


class Images:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.bodies: dict[str, list[int]] = {}

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/ok/{name}", self.slow)
        app.router.add_get("/slow/{rate}/{name}", self.slow)
        app.router.add_get("/reset/{name}", self.reset)
        app.router.add_get("/short/{name}", self.short)
        app.router.add_get("/loop/{number}", self.loop)
        app.router.add_get("/cut/{parts}/{name}", self.cut)
        app.router.add_get("/served/{name}", self.served)
        return app

    def data(self, request: web.Request) -> bytes:
        path = self.directory / request.match_info["name"]
        if not path.is_file():
            raise web.HTTPNotFound(text=f"there is no {path.name} here\n")
        return path.read_bytes()

    async def begin(self, request: web.Request, length: int) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": str(length)})
        await response.prepare(request)
        return response

    async def slow(self, request: web.Request) -> web.StreamResponse:
        data = self.data(request)
        rate = float(request.match_info.get("rate", "inf")) * (1 << 20)
        response = await self.begin(request, len(data))
        for at in range(0, len(data), CHUNK):
            await response.write(data[at : at + CHUNK])
            await asyncio.sleep(CHUNK / rate)
        return response

    async def reset(self, request: web.Request) -> web.StreamResponse:
        data = self.data(request)
        response = await self.begin(request, len(data))
        await response.write(data[: len(data) // 2])
        assert request.transport is not None
        # SO_LINGER of 0 s: the close is a RST.
        linger = struct.pack("ii", 1, 0)
        wire = request.transport.get_extra_info("socket")
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        request.transport.abort()
        return response

    async def short(self, request: web.Request) -> web.StreamResponse:
        data = self.data(request)
        response = await self.begin(request, len(data))
        await response.write(data[: len(data) // 2])
        assert request.transport is not None
        request.transport.close()
        return response

    async def cut(self, request: web.Request) -> web.StreamResponse:
        data, tag = self.data(request), '"the only version"'
        start, headers = 0, {"ETag": tag, "Accept-Ranges": "bytes"}
        if request.headers.get("If-Range") == tag:
            start = request.http_range.start or 0
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        headers["Content-Length"] = str(len(data) - start)
        response = web.StreamResponse(status=206 if start else 200, headers=headers)
        await response.prepare(request)
        part = len(data) // int(request.match_info["parts"])
        end = min(len(data), (start // part + 1) * part)
        sent = self.bodies.setdefault(request.match_info["name"], [])
        sent.append(0)
        for at in range(start, end, CHUNK):
            piece = data[at : min(at + CHUNK, end)]
            await response.write(piece)
            sent[-1] += len(piece)
        if end < len(data):
            assert request.transport is not None
            request.transport.close()
        return response

    async def served(self, request: web.Request) -> web.Response:
        return web.json_response(self.bodies.get(request.match_info["name"], []))

    async def loop(self, request: web.Request) -> web.StreamResponse:
        number = int(request.match_info["number"])
        raise web.HTTPFound(f"/loop/{number + 1}")


def main() -> None:
    directory, host, port = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    web.run_app(Images(directory).app(), host=host, port=port, print=None, access_log=None)


if __name__ == "__main__":
    main()
