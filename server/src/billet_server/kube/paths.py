"""Addresses of Kubernetes resources, and how messages name them. Pure."""

from urllib.parse import quote

from billet_server.ports import Kind


def resource_name(kind: Kind) -> str:
    """Return ``plural.group``, or the plural alone for the core group."""
    return f"{kind.plural}.{kind.group}" if kind.group else kind.plural


def place(kind: Kind, namespace: str | None = None, name: str = "") -> str:
    """Return how messages name an object, or a collection (no name)."""
    path = "/".join(part for part in (namespace, name) if part)
    return f'{resource_name(kind)} "{path}"' if path else resource_name(kind)


def collection_path(kind: Kind, namespace: str | None = None) -> str:
    """Return the path of all objects of a kind, in one namespace or (None) in all.

    Relative, so that a server address with a path of its own keeps it.
    """
    root = f"apis/{kind.group}/{kind.version}" if kind.group else f"api/{kind.version}"
    if kind.namespaced and namespace is not None:
        return f"{root}/namespaces/{quote(namespace, safe='')}/{kind.plural}"
    return f"{root}/{kind.plural}"


def object_path(kind: Kind, namespace: str, name: str, subresource: str = "") -> str:
    """Return the path of one object or of its subresource."""
    path = f"{collection_path(kind, namespace)}/{quote(name, safe='')}"
    return f"{path}/{subresource}" if subresource else path


def is_name(text: str) -> bool:
    """Whether the text can be a path segment at all; "." and ".." would be resolved away."""
    return text not in ("", ".", "..")
