"""SYSLINUX's family: ``extlinux.conf`` and ``syslinux.cfg``."""

from billet_agent.plan.loaders.grub import Entry


def parse_extlinux(text: str) -> Entry | None:
    """Return the default entry (DEFAULT names it, else the first with a kernel), or None."""
    default, entries = "", list[Entry]()
    label, rows = "", dict[str, str]()
    for line in [*text.split("\n"), "LABEL"]:
        key, _, value = line.strip().partition(" ")
        key, value = key.upper(), value.strip()
        if key == "LABEL":
            if "LINUX" in rows:
                entries.append(_entry(label, rows))
            label, rows = value, {}
        elif key == "DEFAULT":
            default = value
        elif key in {"LINUX", "KERNEL"}:
            rows["LINUX"] = value
        elif key in {"INITRD", "APPEND"}:
            rows[key] = value
    named = [entry for entry in entries if entry.names[0] == default]
    return next(iter([*named, *entries]), None)


def _entry(label: str, rows: dict[str, str]) -> Entry:
    words = rows.get("APPEND", "").split()
    initrds = rows.get("INITRD", "").split(",")
    for word in list(words):
        if word.startswith("initrd="):
            initrds += word.removeprefix("initrd=").split(",")
            words.remove(word)
    paths = tuple(path for path in initrds if path)
    return Entry((label,), rows["LINUX"], paths, " ".join(words))
