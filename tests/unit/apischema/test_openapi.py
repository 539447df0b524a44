"""The OpenAPI documents, and their protobuf form as Google's library reads it."""

import json

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from billet_server.apiserver.definitions import builtin_definitions, load_crds, parse_crd
from billet_server.apiserver.openapi import (
    render_v2,
    render_v2_protobuf,
    render_v3,
    render_v3_index,
)

DEFINITIONS = [*builtin_definitions(), *map(parse_crd, load_crds())]

# Messages of gnostic's openapi.v2: name, then "field number type"; "*" repeated.
PROTO = {
    "Document": "swagger 1 s, info 2 Info, paths 8 Paths, definitions 9 Definitions",
    "Info": "title 1 s, version 2 s, description 3 s",
    "Paths": "path 2 *NamedPathItem",
    "NamedPathItem": "name 1 s, value 2 PathItem",
    "PathItem": "get 2 Operation, put 3 Operation, post 4 Operation, delete 5 Operation, "
    "patch 8 Operation, parameters 9 *ParametersItem",
    "Operation": "tags 1 *s, description 3 s, operation_id 5 s, produces 6 *s, consumes 7 *s, "
    "parameters 8 *ParametersItem, responses 9 Responses, schemes 10 *s, "
    "vendor_extension 13 *NamedAny",
    "ParametersItem": "parameter 1 Parameter",
    "Parameter": "body_parameter 1 Body, non_body_parameter 2 NonBody",
    "Body": "description 1 s, name 2 s, in 3 s, required 4 b, schema 5 Schema",
    "NonBody": "query 3 Query, path 4 Path",
    "Query": "required 1 b, in 2 s, description 3 s, name 4 s, type 6 s",
    "Path": "required 1 b, in 2 s, description 3 s, name 4 s, type 5 s",
    "Responses": "response_code 1 *NamedResponseValue",
    "NamedResponseValue": "name 1 s, value 2 ResponseValue",
    "ResponseValue": "response 1 Response",
    "Response": "description 1 s, schema 2 SchemaItem",
    "SchemaItem": "schema 1 Schema",
    "Definitions": "additional_properties 1 *NamedSchema",
    "NamedSchema": "name 1 s, value 2 Schema",
    "Schema": "_ref 1 s, format 2 s, description 4 s, maximum 7 d, exclusive_maximum 8 b, "
    "minimum 9 d, max_length 11 i, min_length 12 i, pattern 13 s, max_items 14 i, "
    "min_items 15 i, required 19 *s, enum 20 *Any, additional_properties 21 Additional, "
    "type 22 TypeItem, items 23 ItemsItem, properties 25 Definitions, "
    "vendor_extension 31 *NamedAny",
    "Additional": "schema 1 Schema, boolean 2 b",
    "TypeItem": "value 1 *s",
    "ItemsItem": "schema 1 *Schema",
    "Any": "yaml 2 s",
    "NamedAny": "name 1 s, value 2 Any",
}


def document_class():
    proto = descriptor_pb2.FileDescriptorProto(name="openapi.proto", package="o", syntax="proto3")
    scalars = {"s": 9, "b": 8, "d": 1, "i": 3}
    for name, fields in PROTO.items():
        message = proto.message_type.add(name=name)
        for field in fields.split(", "):
            field_name, number, kind = field.split(" ")
            label = 3 if kind.startswith("*") else 1
            kind = kind.removeprefix("*")
            entry = message.field.add(name=field_name, number=int(number), label=label)
            entry.type = scalars.get(kind, 11)
            if entry.type == 11:
                entry.type_name = f".o.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(proto)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("o.Document"))


def unknown_fields(message):
    """Field numbers that the description above lacks, anywhere in the message."""
    from google.protobuf.unknown_fields import UnknownFieldSet

    found = {(message.DESCRIPTOR.name, field.field_number) for field in UnknownFieldSet(message)}
    for field, value in message.ListFields():
        if field.message_type:
            for child in value if field.is_repeated else [value]:
                found |= unknown_fields(child)
    return found


@pytest.fixture(scope="module")
def document():
    return render_v2(DEFINITIONS)


@pytest.fixture(scope="module")
def decoded(document):
    message = document_class()()
    message.ParseFromString(render_v2_protobuf(document))
    return message


def schema_of(message):
    """A decoded Schema as JSON again."""
    result = {
        extension.name: json.loads(extension.value.yaml) for extension in message.vendor_extension
    }
    plain = {
        "_ref": "$ref",
        "format": "format",
        "description": "description",
        "pattern": "pattern",
        "max_length": "maxLength",
        "min_length": "minLength",
        "max_items": "maxItems",
        "min_items": "minItems",
    }
    set_fields = {field.name for field, _ in message.ListFields()}
    for field, name in plain.items():
        if field in set_fields:
            result[name] = getattr(message, field)
    # proto3 does not tell 0 from absent; the wire has it, kubectl does not need it
    for name in ("minimum", "maximum"):
        if name in set_fields:
            result[name] = getattr(message, name)
    if message.required:
        result["required"] = list(message.required)
    if message.enum:
        result["enum"] = [json.loads(entry.yaml) for entry in message.enum]
    if message.HasField("type"):
        (result["type"],) = message.type.value
    if message.HasField("items"):
        result["items"] = schema_of(message.items.schema[0])
    if message.HasField("properties"):
        entries = message.properties.additional_properties
        result["properties"] = {entry.name: schema_of(entry.value) for entry in entries}
    if message.HasField("additional_properties"):
        result["additionalProperties"] = schema_of(message.additional_properties.schema)
    return result


def without_zero_limits(schema):
    if isinstance(schema, dict):
        return {
            key: without_zero_limits(value)
            for key, value in schema.items()
            if not (key in ("minimum", "maximum") and value == 0)
        }
    return [without_zero_limits(value) for value in schema] if isinstance(schema, list) else schema


def test_protobuf_has_only_known_fields(decoded):
    assert unknown_fields(decoded) == set()
    assert decoded.swagger == "2.0"
    assert decoded.info.title == "Billet"


def test_protobuf_schemas_come_back_whole(document, decoded):
    back = {
        entry.name: schema_of(entry.value) for entry in decoded.definitions.additional_properties
    }
    assert back == without_zero_limits(document["definitions"])


def test_protobuf_operations_come_back(document, decoded):
    paths = {entry.name: entry.value for entry in decoded.paths.path}
    assert set(paths) == set(document["paths"])
    path = "/apis/metal3.io/v1alpha1/namespaces/{namespace}/baremetalhosts/{name}"
    patch = paths[path].patch
    assert list(patch.consumes) == document["paths"][path]["patch"]["consumes"]
    names = [
        item.parameter.non_body_parameter.query.name or item.parameter.body_parameter.name
        for item in patch.parameters
    ]
    assert names == ["body", "dryRun", "fieldManager", "fieldValidation"]
    extensions = {entry.name: json.loads(entry.value.yaml) for entry in patch.vendor_extension}
    assert extensions["x-kubernetes-action"] == "patch"
    assert extensions["x-kubernetes-group-version-kind"]["kind"] == "BareMetalHost"
    (answer,) = [
        entry.value.response for entry in patch.responses.response_code if entry.name == "200"
    ]
    assert answer.schema.schema._ref.endswith("io.metal3.v1alpha1.BareMetalHost")
    assert [item.parameter.non_body_parameter.path.name for item in paths[path].parameters] == [
        "namespace",
        "name",
    ]


def test_protobuf_refuses_what_it_cannot_say():
    with pytest.raises(KeyError, match="host"):
        render_v2_protobuf({"swagger": "2.0", "host": "example.org"})


def references(value):
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for child in value.values():
            yield from references(child)
    elif isinstance(value, list):
        for child in value:
            yield from references(child)


def test_every_reference_leads_somewhere(document):
    known = {f"#/definitions/{name}" for name in document["definitions"]}
    assert set(references(document)) <= known
    groups = {(item.kind.group, item.kind.version) for item in DEFINITIONS}
    for group, version in groups:
        v3 = render_v3(DEFINITIONS, group, version)
        known = {f"#/components/schemas/{name}" for name in v3["components"]["schemas"]}
        assert set(references(v3)) <= known


def test_every_kind_can_be_found_by_group_version_kind(document):
    found = {
        (entry["group"], entry["version"], entry["kind"])
        for schema in document["definitions"].values()
        for entry in schema.get("x-kubernetes-group-version-kind", ())
    }
    for definition in DEFINITIONS:
        kind = definition.kind
        assert (kind.group, kind.version, kind.kind) in found
        assert (kind.group, kind.version, definition.list_kind) in found


def test_paths_of_a_kind(document):
    base = "/apis/metal3.io/v1alpha1"
    assert [path for path in document["paths"] if "hosts" in path] == [
        f"{base}/baremetalhosts",
        f"{base}/namespaces/{{namespace}}/baremetalhosts",
        f"{base}/namespaces/{{namespace}}/baremetalhosts/{{name}}",
        f"{base}/namespaces/{{namespace}}/baremetalhosts/{{name}}/status",
    ]
    assert "/api/v1/namespaces/{name}" in document["paths"]
    item = document["paths"][f"{base}/namespaces/{{namespace}}/baremetalhosts/{{name}}"]
    assert set(item) == {"get", "put", "patch", "delete", "parameters"}


def test_v3_has_what_kubectl_asks_for():
    v3 = render_v3(DEFINITIONS, "metal3.io", "v1alpha1")
    assert v3["openapi"].startswith("3.")
    path = "/apis/metal3.io/v1alpha1/namespaces/{namespace}/baremetalhosts/{name}"
    patch = v3["paths"][path]["patch"]
    assert "fieldValidation" in [parameter["name"] for parameter in patch["parameters"]]
    assert "application/merge-patch+json" in patch["requestBody"]["content"]
    host = v3["components"]["schemas"]["io.metal3.v1alpha1.BareMetalHost"]
    assert host["properties"]["spec"]["properties"]["image"]["description"].startswith("What to")
    raid = host["properties"]["spec"]["properties"]["raid"]["properties"]
    assert raid["hardwareRAIDVolumes"]["nullable"] is True
    assert raid["hardwareRAIDVolumes"]["type"] == "array"


def test_v3_index_names_documents_by_their_content():
    index = render_v3_index(DEFINITIONS)["paths"]
    assert set(index) == {
        "api/v1",
        "apis/apiextensions.k8s.io/v1",
        "apis/cluster.k8s.io/v1alpha1",
        "apis/coordination.k8s.io/v1",
        "apis/metal3.io/v1alpha1",
    }
    address = index["apis/metal3.io/v1alpha1"]["serverRelativeURL"]
    assert address.startswith("/openapi/v3/apis/metal3.io/v1alpha1?hash=")
    fewer = [item for item in DEFINITIONS if item.kind.kind != "HardwareData"]
    changed = render_v3_index(fewer)["paths"]
    assert changed["apis/metal3.io/v1alpha1"]["serverRelativeURL"] != address
    assert changed["api/v1"] == index["api/v1"]


def test_v3_of_an_unknown_group_has_no_paths():
    assert render_v3(DEFINITIONS, "nobody.org", "v1")["paths"] == {}
