"""Content negotiation: as which of the API's forms a client wants its answer.

Forms: plain JSON, a Table (what kubectl prints), PartialObjectMetadata (what controllers that
only need metadata ask for).
"""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Literal, NamedTuple

from billet_server.apiserver import encoding
from billet_server.apiserver.definitions import Definition
from billet_server.apiserver.failure import bad_request, not_acceptable
from billet_server.apiserver.table import render_table
from billet_server.ports import Object

Include = Literal["Metadata", "Object", "None"]


class MediaRange(NamedTuple):
    """One entry of an Accept header."""

    type: str
    parameters: Mapping[str, str]


def parse_accept(header: str) -> list[MediaRange]:
    """Parse an Accept header, best first (RFC 9110 section 12.5.1)."""
    found: list[tuple[float, MediaRange]] = []
    for entry in header.split(","):
        media, *pairs = (part.strip() for part in entry.split(";"))
        parameters = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
        try:
            quality = float(parameters.pop("q", "1"))
        except ValueError:
            quality = 0.0
        if media and quality > 0:
            found.append((-quality, MediaRange(media.lower(), parameters)))
    found.sort(key=lambda pair: pair[0])
    return [media for _, media in found]


def accepts_json(media: MediaRange) -> bool:
    """Whether JSON satisfies an entry."""
    return media.type in ("application/json", "application/*", "*/*")


class Form(NamedTuple):
    """How to render objects. ``kind`` "" is plain; ``include`` matters to Tables."""

    kind: Literal["", "Table", "PartialObjectMetadata"] = ""
    version: str = "v1"
    include: Include = "Metadata"

    @property
    def key(self) -> str:
        """Return a name for caches of renderings."""
        return f"{self.kind}/{self.version}/{self.include}"


def parse_form(accept: str, include: str, *, listing: bool) -> Form:
    """Choose a form. Raises a 406 when nothing offered is acceptable, a 400 for ``include``."""
    match include or "Metadata":
        case ("Metadata" | "Object" | "None") as wanted:
            pass
        case _:
            raise bad_request(f'unrecognized includeObject value: "{include}"')
    for media in parse_accept(accept or "*/*"):
        if not accepts_json(media):
            continue
        kind = media.parameters.get("as", "")
        if not kind:
            return Form()
        version = media.parameters.get("v", "v1")
        known = media.parameters.get("g") == "meta.k8s.io" and version in ("v1", "v1beta1")
        if known and kind == "Table":
            return Form("Table", version, wanted)
        if known and kind == ("PartialObjectMetadataList" if listing else "PartialObjectMetadata"):
            return Form("PartialObjectMetadata", version)
    raise not_acceptable(["application/json"])


def _partial(obj: Object, version: str) -> Object:
    return {
        "kind": "PartialObjectMetadata",
        "apiVersion": f"meta.k8s.io/{version}",
        "metadata": obj["metadata"],
    }


def render_list(
    form: Form, definition: Definition, bodies: list[bytes], meta: dict[str, Any], now: datetime
) -> bytes:
    """Render a list as Table or PartialObjectMetadataList; blocks, for a thread."""
    items = [encoding.decode(body) for body in bodies]
    if form.kind == "Table":
        return encoding.encode(_table(form, definition, items, meta, now))
    listed = {
        "kind": "PartialObjectMetadataList",
        "apiVersion": f"meta.k8s.io/{form.version}",
        "metadata": meta,
        "items": [_partial(item, form.version) for item in items],
    }
    return encoding.encode(listed)


def _table(
    form: Form, definition: Definition, items: list[Object], meta: dict[str, Any], now: datetime
) -> Object:
    table = render_table(definition, items, meta, form.include, now)
    if form.version != "v1":
        table["apiVersion"] = f"meta.k8s.io/{form.version}"
    return table


def object_renderer(
    form: Form, definition: Definition, now: Callable[[], datetime], *, headers: bool = True
) -> Callable[[bytes], bytes]:
    """Return what turns a stored body into the form; ``headers``: a Table's columns too."""

    def render(body: bytes) -> bytes:
        if not form.kind:
            return body
        obj = encoding.decode(body)
        if form.kind == "PartialObjectMetadata":
            return encoding.encode(_partial(obj, form.version))
        meta = {"resourceVersion": obj["metadata"].get("resourceVersion", "")}
        table = _table(form, definition, [obj], meta, now())
        if not headers:
            table["columnDefinitions"] = None
        return encoding.encode(table)

    return render
