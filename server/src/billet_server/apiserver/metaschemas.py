"""Schemas of the parts that every kind shares (k8s.io/apimachinery meta/v1), in our words.

Refs are written as bare names; `billet_server.apiserver.openapi` turns them into ``$ref``.
"""

from typing import Any

Schema = dict[str, Any]

META = "io.k8s.apimachinery.pkg.apis.meta.v1."
OBJECT_META = META + "ObjectMeta"
LIST_META = META + "ListMeta"
OWNER_REFERENCE = META + "OwnerReference"
STATUS = META + "Status"
DELETE_OPTIONS = META + "DeleteOptions"


def _text(description: str) -> Schema:
    return {"type": "string", "description": description}


def _time(description: str) -> Schema:
    return {"type": "string", "format": "date-time", "description": description}


def _number(description: str) -> Schema:
    return {"type": "integer", "format": "int64", "description": description}


def _flag(description: str) -> Schema:
    return {"type": "boolean", "description": description}


def _texts(description: str) -> Schema:
    return {
        "type": "object",
        "description": description,
        "additionalProperties": {"type": "string"},
    }


def _list(description: str, items: Schema) -> Schema:
    return {"type": "array", "description": description, "items": items}


def _object(description: str, *required: str, **properties: Schema) -> Schema:
    schema = {"type": "object", "description": description, "properties": properties}
    return {**schema, "required": list(required)} if required else schema


def _any(description: str) -> Schema:
    return {"type": "object", "description": description}


API_VERSION = _text("Group and version of this object.")
KIND = _text("Kind of this object.")

META_SCHEMAS: dict[str, Schema] = {
    OBJECT_META: _object(
        "What all stored objects have in common.",
        annotations=_texts("Notes by tools and people; not for selecting."),
        creationTimestamp=_time("When the object was created; set by the server."),
        deletionGracePeriodSeconds=_number("Seconds that a deletion leaves for an orderly end."),
        deletionTimestamp=_time("When deletion was asked for; set by the server."),
        finalizers=_list("Who must agree before the object goes.", {"type": "string"}),
        generateName=_text("Beginning of a name that the server completes, when name is empty."),
        generation=_number("Counts the changes of the wanted state; set by the server."),
        labels=_texts("Words to select objects by."),
        managedFields=_list("Who wrote which field; not kept here.", _any("One writer.")),
        name=_text("Name of the object, unique in its namespace. It never changes."),
        namespace=_text("Namespace of the object. It never changes."),
        ownerReferences=_list("Objects that this one belongs to.", {"$ref": OWNER_REFERENCE}),
        resourceVersion=_text("Changes with every write; a write with an older one is refused."),
        selfLink=_text("No longer used."),
        uid=_text("Identifies this object among all there ever were; set by the server."),
    ),
    OWNER_REFERENCE: _object(
        "An object that another one belongs to.",
        *("apiVersion", "kind", "name", "uid"),
        apiVersion=_text("Group and version of the owner."),
        blockOwnerDeletion=_flag("Whether the owner's foreground deletion waits for this object."),
        controller=_flag("Whether this owner is the one that manages the object."),
        kind=_text("Kind of the owner."),
        name=_text("Name of the owner."),
        uid=_text("UID of the owner."),
    ),
    LIST_META: _object(
        "What all lists have in common.",
        **{"continue": _text("Where the next part of the list begins, when it is not complete.")},
        remainingItemCount=_number("How many objects are left out, where known."),
        resourceVersion=_text("State of the collection that the list shows; watch from here."),
        selfLink=_text("No longer used."),
    ),
    DELETE_OPTIONS: _object(
        "How to delete an object.",
        apiVersion=API_VERSION,
        dryRun=_list("All: check only.", {"type": "string"}),
        gracePeriodSeconds=_number("Seconds for an orderly end."),
        kind=KIND,
        orphanDependents=_flag("Replaced by propagationPolicy."),
        preconditions=_object(
            "What must hold, or nothing is deleted.",
            resourceVersion=_text("The version that is meant."),
            uid=_text("The UID that is meant."),
        ),
        propagationPolicy=_text("Orphan, Background or Foreground."),
    ),
    STATUS: _object(
        "The answer to a request that returns no object.",
        apiVersion=API_VERSION,
        code=_number("HTTP status."),
        details=_any("Which object, and the faults of its fields."),
        kind=KIND,
        message=_text("What happened, in a sentence."),
        metadata={"$ref": LIST_META},
        reason=_text("What happened, in one word."),
        status=_text("Success or Failure."),
    ),
}
