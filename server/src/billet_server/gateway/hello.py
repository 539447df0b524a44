"""Limits on what an agent may claim in its opening, before anybody looks at its token. Pure."""

import re

from billet_wire import PROTOCOL, Hello, JobReport

MAX_TOKEN_CHARS = 512
MAX_MACS = 256
MAX_JOBS = 64

_AGENT_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_JOB_ID = re.compile(r"[A-Za-z0-9/_:.-]{1,160}")
_KINDS = frozenset({"inspect", "clean", "deploy", "hand-over"})
_VERSION = re.compile(r"[A-Za-z0-9.+_~-]{1,64}")


def is_report(report: JobReport) -> bool:
    """Whether a job's report may be kept: its id and kind are such as this server gives."""
    return report.kind in _KINDS and _JOB_ID.fullmatch(report.id) is not None


def check_hello(hello: Hello) -> str | None:
    """Return what is wrong with an opening, as words for the agent's log, or None."""
    if hello.protocol != PROTOCOL:
        return (
            f"the agent speaks protocol {hello.protocol}, this server {PROTOCOL}; "
            "build the ramdisk from the server's own version"
        )
    if not 0 < len(hello.token) <= MAX_TOKEN_CHARS:
        return f"the token is empty or longer than {MAX_TOKEN_CHARS} characters"
    if not _AGENT_ID.fullmatch(hello.agent_id):
        return "agent_id is not 1 to 64 letters, digits, '-' or '_'"
    if len(hello.macs) > MAX_MACS or not all(_MAC.fullmatch(mac) for mac in hello.macs):
        return f"macs are not at most {MAX_MACS} addresses in lower case with colons"
    if hello.boot_mode not in {"UEFI", "legacy"}:
        return "boot_mode is neither UEFI nor legacy"
    if not _VERSION.fullmatch(hello.version):
        return "version is not a version"
    if not 0 <= hello.uptime_s < 1e10:
        return "uptime_s is not a number of seconds"
    if len(hello.jobs) > MAX_JOBS:
        return f"more than {MAX_JOBS} jobs"
    return None
