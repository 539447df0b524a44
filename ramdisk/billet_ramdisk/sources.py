"""The build machine's apt sources, both spellings, cut down to one Debian release. Pure.

Format: sources.list(5), one-line style and deb822 style.
"""

import re
from collections.abc import Iterable

Stanza = dict[str, str]
"""One deb822 stanza: field name as deb822 spells it -> value (continuation lines kept)."""

_ONE_LINE = re.compile(
    r"deb\s+(?:\[(?P<options>[^\]]*)\]\s+)?(?P<uri>\S+)\s+(?P<suite>\S+)(?P<rest>.*)"
)
_OPTION_FIELDS = {
    "arch": "Architectures",
    "signed-by": "Signed-By",
    "trusted": "Trusted",
    "check-valid-until": "Check-Valid-Until",
    "allow-insecure": "Allow-Insecure",
}
_COMPONENTS = ("main", "non-free-firmware")


def parse_one_line(text: str) -> list[Stanza]:
    """Stanzas of the ``deb`` lines of a sources.list; ``deb-src`` and comments are left out."""
    found = []
    for line in text.splitlines():
        match = _ONE_LINE.fullmatch(line.split("#", 1)[0].strip())
        if not match:
            continue
        stanza = {"Types": "deb", "URIs": match["uri"], "Suites": match["suite"]}
        stanza["Components"] = " ".join(match["rest"].split())
        for option in (match["options"] or "").split():
            key, _, value = option.partition("=")
            if key.lower() in _OPTION_FIELDS:
                stanza[_OPTION_FIELDS[key.lower()]] = value.replace(",", " ")
        found.append(stanza)
    return found


def parse_deb822(text: str) -> list[Stanza]:
    """Stanzas of a .sources file. Comment lines go; multi-line values (inline keys) stay."""
    found: list[Stanza] = []
    stanza: Stanza = {}
    field = ""
    for line in [*text.splitlines(), ""]:
        if line.startswith("#"):
            continue
        if not line.strip():
            if stanza:
                found.append(stanza)
            stanza, field = {}, ""
        elif line[0] in " \t":
            if field:
                stanza[field] += "\n" + line
        else:
            name, _, value = line.partition(":")
            field = _canonical(name.strip())
            stanza[field] = value.strip()
    return found


def select_release(stanzas: Iterable[Stanza], codename: str) -> list[Stanza]:
    """The binary sources of ``codename`` (and its -updates and -security) that have ``main``.

    Third parties use the codename too, but with components of their own: they are left out.
    """
    wanted = {codename, f"{codename}-updates", f"{codename}-security", f"{codename}/updates"}
    kept = []
    for stanza in stanzas:
        suites = [suite for suite in stanza.get("Suites", "").split() if suite in wanted]
        components = [c for c in _COMPONENTS if c in stanza.get("Components", "").split()]
        if (
            suites
            and "main" in components
            and "deb" in stanza.get("Types", "").split()
            and stanza.get("Enabled", "yes").lower() not in {"no", "false", "0"}
        ):
            kept.append(
                {**stanza, "Types": "deb"}
                | {"Suites": " ".join(suites), "Components": " ".join(components)}
            )
    return kept


def render_deb822(stanzas: Iterable[Stanza]) -> str:
    """A .sources file of ``stanzas``."""
    return "\n".join(
        "".join(f"{name}: {value}\n" for name, value in stanza.items()) for stanza in stanzas
    )


def _canonical(name: str) -> str:
    spelled = {"uris": "URIs"}
    return spelled.get(name.lower(), "-".join(part.capitalize() for part in name.split("-")))
