"""Why a job fails: one exception that carries a `JobProblem` with a stable id and advice."""

from collections.abc import Mapping

from billet_wire import JobProblem

EVIDENCE_BYTES = 4096

ADVICE: Mapping[str, str] = {
    "image-fetch": "Check that spec.image.url is right and that the provisioning network "
    "reaches its server: curl -I URL from there.",
    "image-short": "Compare the file's size on the image server with what it announces; "
    "publish the image again.",
    "image-checksum": "Publish the image and its checksum again, or correct spec.image.checksum.",
    "checksum-file": "Give spec.image.checksum the image's digest, or a sum file that lists the "
    "image exactly once.",
    "image-format": "Correct spec.image.format, or publish a whole-disk image of that format.",
    "image-unsafe": "Make a self-contained image: qemu-img convert -O qcow2 OLD NEW.",
    "image-too-large": "Use a smaller image, or choose a bigger disk with rootDeviceHints.",
    "image-memory": "Compress the image (qemu-img convert -c), use format raw, which is streamed, "
    "or give the machine more memory.",
    "root-device": "Compare spec.rootDeviceHints with status.hardware.storage of this host.",
    "disk-write": "Look at the disk's health (smartctl, kernel log); choose another disk with "
    "rootDeviceHints if it is dying.",
    "config-drive": "Leave room for the config drive at the end of the disk, or make it smaller.",
    "boot-entry": "Clear old boot entries in the firmware's setup, or change spec.bootMode.",
    "image-boot": "Use an image that boots in this firmware mode, or change spec.bootMode.",
    "clean": "Look at the disk's health (smartctl, kernel log); clean it by hand, or set "
    "spec.automatedCleaningMode to disabled.",
    "data-protected": "Save what is needed; then remove the annotation billet.dev/protect-data "
    "from the host, and it goes on by itself.",
    "image-unsupported": "Use an http:// or https:// URL.",
    "agent-busy": "Wait for the running job, or cancel it.",
    "agent-internal": "This is a defect in billet-agent: please report it with the evidence.",
}
"""What a person should do, by problem id; docs/troubleshooting has a section for each."""


class JobFailed(Exception):
    """A job cannot reach its goal; ``problem`` is what the server is told."""

    def __init__(self, problem: JobProblem) -> None:
        super().__init__(problem.message)
        self.problem = problem


class JobCancelled(Exception):
    """The server asked for the job to stop."""


def failure(problem: str, message: str, *, evidence: str = "", advice: str = "") -> JobFailed:
    """Return the exception for a problem id of `ADVICE`; evidence is cut to 4 KiB."""
    return JobFailed(
        JobProblem(
            problem=problem,
            message=message,
            evidence=bounded(evidence),
            advice=advice or ADVICE[problem],
        )
    )


def bounded(text: str, limit: int = EVIDENCE_BYTES) -> str:
    """Return ``text`` within ``limit`` UTF-8 bytes; what is cut is the middle."""
    data = text.encode(errors="replace")
    if len(data) <= limit:
        return text
    mark = b"\n[...]\n"
    half = (limit - len(mark)) // 2
    return (data[:half] + mark + data[-half:]).decode(errors="ignore")


def show_bytes(count: int) -> str:
    """Return a size for people: exact bytes and a rounded unit."""
    for unit, factor in (("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= factor:
            return f"{count / factor:.2f} {unit} ({count} B)"
    return f"{count} B"
