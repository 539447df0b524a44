"""Processors and memory from /proc and sysfs."""

from billet_agent.inventory.sources import Sources
from billet_wire import CpuReport

_MODEL_KEYS = ("model name", "cpu model", "uarch", "cpu")


def read_cpu(sources: Sources) -> CpuReport:
    """Return the processors: hardware threads, model, highest clock, sorted flags."""
    blocks = _blocks(sources.text("proc/cpuinfo"))
    first = blocks[0] if blocks else {}
    threads = [block for block in blocks if "processor" in block]
    model = next((first[key] for key in _MODEL_KEYS if first.get(key)), "")
    flags = first.get("flags") or first.get("features") or ""
    return CpuReport(
        arch=sources.architecture,
        model=model,
        clock_megahertz=_clock(sources, first),
        flags=tuple(sorted(set(flags.split()))),
        count=len(threads),
    )


def read_available_bytes(sources: Sources) -> int:
    """Return MemAvailable of /proc/meminfo in bytes."""
    return _meminfo(sources, "MemAvailable") * 1024


def read_total_mib(sources: Sources) -> int:
    """Return MemTotal in MiB: what the kernel manages, a little less than what is installed."""
    return _meminfo(sources, "MemTotal") // 1024


def _meminfo(sources: Sources, key: str) -> int:
    for line in sources.text("proc/meminfo").splitlines():
        name, _, value = line.partition(":")
        if name == key:
            return int(value.split()[0])
    return 0


def _blocks(text: str) -> list[dict[str, str]]:
    blocks = []
    for part in text.split("\n\n"):
        pairs = (line.partition(":") for line in part.splitlines())
        block = {key.strip().lower(): value.strip() for key, sign, value in pairs if sign}
        if block:
            blocks.append(block)
    return blocks


def _clock(sources: Sources, block: dict[str, str]) -> float:
    kilohertz = sources.number("sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq")
    if kilohertz:
        return kilohertz / 1000
    try:
        return float(block.get("cpu mhz", "0"))
    except ValueError:
        return 0.0
