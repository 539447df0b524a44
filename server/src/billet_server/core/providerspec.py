"""``spec.providerSpec.value`` of a Machine: `BareMetalMachineProviderSpec`, read strictly.

Fields are those of 2019's ``baremetal.cluster.k8s.io/v1alpha1``. What is not understood is a
fault: a Machine whose selector was mistyped must not take just any host.
"""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import msgspec

from billet_server.core.labels import Requirement, Selector, requirement_fault
from billet_server.core.validation.disks import image_faults

GROUP: Final = "baremetal.cluster.k8s.io"
VERSION: Final = "v1alpha1"
KIND: Final = "BareMetalMachineProviderSpec"
PATH: Final = "spec.providerSpec.value"


class _Strict(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    pass


class _Image(_Strict, frozen=True):
    url: str = ""
    checksum: str = ""


class _UserData(_Strict, frozen=True):
    name: str = ""
    namespace: str = ""


class _Expression(_Strict, frozen=True):
    key: str
    operator: str
    values: tuple[str, ...] = ()


class _HostSelector(_Strict, frozen=True):
    match_labels: dict[str, str] = {}
    match_expressions: tuple[_Expression, ...] = ()


class _Value(_Strict, frozen=True):
    api_version: str
    kind: str
    image: _Image = _Image()
    user_data: _UserData | None = None
    host_selector: _HostSelector = _HostSelector()
    metadata: dict[str, Any] = {}


class ProviderSpec(NamedTuple):
    """What a Machine wants: an image, user data (a Secret's name, or ""), and of which hosts."""

    url: str
    checksum: str
    user_data: str
    selector: Selector


class SpecFault(NamedTuple):
    """Why a Machine cannot be acted upon, as one sentence that begins with the field's path."""

    message: str


class Foreign(NamedTuple):
    """The Machine is another provider's; ``api_version`` says whose."""

    api_version: str


def parse_provider_spec(raw: Any, namespace: str) -> ProviderSpec | SpecFault | Foreign:
    """Return what ``spec.providerSpec`` of a Machine in ``namespace`` says."""
    value = raw.get("value") if isinstance(raw, Mapping) else None
    if not isinstance(value, Mapping):
        return SpecFault(f"{PATH}: is missing; it is a {KIND} with an image of url and checksum")
    api_version = value.get("apiVersion")
    if isinstance(api_version, str) and api_version.partition("/")[0] not in ("", GROUP):
        return Foreign(api_version[:200])
    try:
        parsed = msgspec.convert(_without_nulls(value), _Value, strict=True)
    except msgspec.ValidationError as error:
        return SpecFault(_words(str(error)))
    return _checked(parsed, namespace)


def _checked(value: _Value, namespace: str) -> ProviderSpec | SpecFault:
    if value.api_version != f"{GROUP}/{VERSION}":
        return SpecFault(f"{PATH}.apiVersion: {value.api_version!r} is not {GROUP}/{VERSION}")
    if value.kind != KIND:
        return SpecFault(f"{PATH}.kind: {value.kind!r} is not {KIND}")
    image, data = value.image, value.user_data
    for name, text in (("url", image.url), ("checksum", image.checksum)):
        if not text.strip():
            return SpecFault(f"{PATH}.image.{name}: is missing or empty")
    as_host = {"spec": {"image": {"url": image.url, "checksum": image.checksum}}}
    for path, _, text in image_faults(as_host):
        return SpecFault(f"{PATH}.{path.removeprefix('spec.')}: {text}")
    if data is not None and data.namespace not in ("", namespace):
        text = f"{data.namespace!r} is not the Machine's own namespace {namespace!r}"
        return SpecFault(f"{PATH}.userData.namespace: {text}; the Secret has to be there")
    if data is not None and not data.name and data.namespace:
        return SpecFault(f"{PATH}.userData.name: is missing or empty")
    selector = _selector(value.host_selector)
    if isinstance(selector, SpecFault):
        return selector
    return ProviderSpec(image.url, image.checksum, data.name if data else "", selector)


def _selector(raw: _HostSelector) -> Selector | SpecFault:
    found = []
    for key, value in sorted(raw.match_labels.items()):
        found.append(Requirement(key, "=", (value,)))
        if fault := requirement_fault(found[-1]):
            return SpecFault(f"{PATH}.hostSelector.matchLabels: {fault}")
    for number, each in enumerate(raw.match_expressions):
        found.append(Requirement(each.key, each.operator.lower(), each.values))
        if fault := requirement_fault(found[-1]):
            return SpecFault(f"{PATH}.hostSelector.matchExpressions[{number}]: {fault}")
    return tuple(found)


def _without_nulls(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _without_nulls(each) for name, each in value.items() if each is not None}
    return [_without_nulls(each) for each in value] if isinstance(value, list) else value


def _words(text: str) -> str:
    """Return msgspec's message with the path first: ``Expected … - at `$.image```."""
    said, found, place = text.rpartition(" - at `$")
    path = f"{PATH}{place.rstrip('`')}" if found else PATH
    return f"{path}: {said or text}"[:500]
