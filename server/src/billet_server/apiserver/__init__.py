"""The embedded Kubernetes API: an aiohttp application over SQLite, for real kubectl.

`ApiServer` is all that others need.
"""

from billet_server.apiserver.server import ApiServer

__all__ = ["ApiServer"]
