"""What runs in the ramdisk: dials the server, reports the hardware, puts the image on the disk.

    __main__ > agent > link, jobs > image, inventory, disk, boot > plan, tools, problems

`plan` decides and is pure; `tools` is the only module that starts processes; jobs run in one
worker thread and use blocking calls, asyncio lives in `link`, `agent` and `jobs.registry`.
"""

from importlib.metadata import PackageNotFoundError, version

try:
    VERSION = version("billet-agent")
except PackageNotFoundError:  # run from a source tree that was never installed
    VERSION = "0"
