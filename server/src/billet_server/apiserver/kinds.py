"""The kinds of Kubernetes itself that the embedded API serves, with small schemas of ours.

Only fields that Billet or its users meet are listed. Columns are those that kubectl users
expect; ``=name`` paths are the computed cells of `billet_server.apiserver.cells`.
"""

from typing import Any

from billet_server import ports
from billet_server.apiserver.definitions import ALL_VERBS, Column, Definition

Schema = dict[str, Any]


def _text(description: str, **more: Any) -> Schema:
    return {"type": "string", "description": description, **more}


def _integer(description: str) -> Schema:
    return {"type": "integer", "format": "int32", "description": description}


def _flag(description: str) -> Schema:
    return {"type": "boolean", "description": description}


def _time(description: str) -> Schema:
    return {"type": "string", "format": "date-time", "nullable": True, "description": description}


def _object(description: str, **properties: Schema) -> Schema:
    return {"type": "object", "description": description, "properties": properties}


def _texts(description: str, **more: Any) -> Schema:
    items = {"type": "string", **more}
    return {"type": "object", "description": description, "additionalProperties": items}


def _list(description: str, items: Schema) -> Schema:
    return {"type": "array", "description": description, "items": items}


def _open(description: str) -> Schema:
    return {
        "type": "object",
        "description": description,
        "x-kubernetes-preserve-unknown-fields": True,
    }


def _top(description: str, **properties: Schema) -> Schema:
    return _object(
        description,
        apiVersion=_text("Group and version of this object."),
        kind=_text("Kind of this object."),
        metadata={"type": "object"},
        **properties,
    )


def _reference(description: str) -> Schema:
    return _object(
        description,
        apiVersion=_text("Group and version of the object."),
        fieldPath=_text("Part of the object that is meant."),
        kind=_text("Kind of the object."),
        name=_text("Name of the object."),
        namespace=_text("Namespace of the object."),
        resourceVersion=_text("Version of the object that was seen."),
        uid=_text("UID of the object."),
    )


_AGE = Column("Age", "string", "", "Time since the object was created", "=age")
_IMMUTABLE = _flag("When true, data may never change again.")

SECRET = Definition(
    ports.SECRET,
    "secret",
    "SecretList",
    schema=_top(
        "Secret data: credentials of a BMC, user data of a host.",
        data=_texts("The values, each in base64.", format="byte"),
        immutable=_IMMUTABLE,
        stringData=_texts("Values in plain text, merged into data on writing; never shown."),
        type=_text("What the Secret is for; Opaque when not said."),
    ),
    columns=(
        Column("Type", "string", "", "What the Secret is for", ".type"),
        Column("Data", "integer", "", "Number of values", "=data_count"),
        _AGE,
    ),
)

CONFIG_MAP = Definition(
    ports.CONFIG_MAP,
    "configmap",
    "ConfigMapList",
    ("cm",),
    schema=_top(
        "Settings as key and value.",
        binaryData=_texts("Values that are not text, in base64.", format="byte"),
        data=_texts("Values that are text."),
        immutable=_IMMUTABLE,
    ),
    columns=(Column("Data", "integer", "", "Number of values", "=data_count"), _AGE),
)

NAMESPACE = Definition(
    ports.NAMESPACE,
    "namespace",
    "NamespaceList",
    ("ns",),
    has_status=True,
    schema=_top(
        "A room of its own for names.",
        spec=_object(
            "What is wanted of the namespace.",
            finalizers=_list("Who must agree before it goes.", _text("One of them.")),
        ),
        status=_object(
            "State of the namespace.",
            conditions=_list("Details of its removal.", _open("One condition.")),
            phase=_text("Active or Terminating."),
        ),
    ),
    columns=(Column("Status", "string", "", "Active or Terminating", ".status.phase"), _AGE),
    verbs=tuple(verb for verb in ALL_VERBS if verb != "deletecollection"),
)

EVENT = Definition(
    ports.EVENT,
    "event",
    "EventList",
    ("ev",),
    schema=_top(
        "Something that happened to an object.",
        action=_text("What was done."),
        count=_integer("How often it happened."),
        eventTime=_time("When it happened, in microseconds."),
        firstTimestamp=_time("When it happened first."),
        involvedObject=_reference("The object it happened to."),
        lastTimestamp=_time("When it happened last."),
        message=_text("What happened, in a sentence."),
        reason=_text("What happened, in one word of CamelCase."),
        related=_reference("Another object that has to do with it."),
        reportingComponent=_text("Who reports it."),
        reportingInstance=_text("Which instance of it."),
        series=_object(
            "Repetitions.",
            count=_integer("How often."),
            lastObservedTime=_time("When it was seen last."),
        ),
        source=_object(
            "Who reports it.",
            component=_text("Name of the component."),
            host=_text("Name of its machine."),
        ),
        type=_text("Normal or Warning."),
    ),
    columns=(
        Column("Last Seen", "string", "", "Time since it happened last", "=event_last_seen"),
        Column("Type", "string", "", "Normal or Warning", ".type"),
        Column("Reason", "string", "", "What happened, in one word", ".reason"),
        Column("Object", "string", "", "The object it happened to", "=event_object"),
        Column("Subobject", "string", "", "Part of the object", ".involvedObject.fieldPath", 1),
        Column("Source", "string", "", "Who reports it", "=event_source", 1),
        Column("Message", "string", "", "What happened, in a sentence", ".message"),
        Column("First Seen", "string", "", "Time since it happened first", "=event_first_seen", 1),
        Column("Count", "integer", "", "How often it happened", "=event_count", 1),
        Column("Name", "string", "name", "Name of the event", ".metadata.name", 1),
    ),
)

LEASE = Definition(
    ports.LEASE,
    "lease",
    "LeaseList",
    schema=_top(
        "A claim that must be renewed, for instance on leadership.",
        spec=_object(
            "The claim.",
            acquireTime=_time("When the holder got it."),
            holderIdentity=_text("Who holds it."),
            leaseDurationSeconds=_integer("How long it holds without renewal."),
            leaseTransitions=_integer("How often the holder changed."),
            preferredHolder=_text("Who should hold it."),
            renewTime=_time("When it was renewed last."),
            strategy=_text("How the holder is chosen."),
        ),
    ),
    columns=(Column("Holder", "string", "", "Who holds it", ".spec.holderIdentity"), _AGE),
)

CRD = Definition(
    ports.CRD,
    "customresourcedefinition",
    "CustomResourceDefinitionList",
    ("crd", "crds"),
    ("api-extensions",),
    has_status=True,
    schema=_top(
        "A kind of object that is not built in.",
        spec=_open("Group, names, scope, versions with their schemas."),
        status=_open("Whether the kind is served."),
    ),
    columns=(
        Column("Created At", "string", "", "When it was created", ".metadata.creationTimestamp"),
    ),
)

DEFINITIONS = (SECRET, CONFIG_MAP, NAMESPACE, EVENT, LEASE, CRD)
