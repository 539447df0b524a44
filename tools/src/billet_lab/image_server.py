"""Serves a directory of images over HTTP, as a rack's web server would: ``/images/NAME``.

Run inside the lab's network: ``python -m billet_lab.image_server DIR HOST PORT``. Range requests
are answered (aiohttp's FileResponse); nothing is listed and nothing outside DIR is reachable.
"""

import sys
from pathlib import Path

from aiohttp import web


def create_app(directory: Path) -> web.Application:
    """Return the application."""
    app = web.Application()
    app.router.add_static("/images/", directory, show_index=False, follow_symlinks=False)
    return app


def main() -> None:
    """Serve until SIGTERM."""
    directory, host, port = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    web.run_app(create_app(directory), host=host, port=port, print=None, access_log=None)


if __name__ == "__main__":
    main()
