"""Repeated fields of JSON texts."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billet_server.apiserver.repeated import repeated_fields


@pytest.mark.parametrize(
    ("text", "paths"),
    [
        ("{}", []),
        ('{"a": 1, "b": {"a": 1}}', []),
        ('{"a": 1, "a": 2, "a": 3}', ["a"]),
        ('{"a": [{"b": 1}, {"c": {"d": 1, "d": 2}}]}', ["a[1].c.d"]),
        ('{"a": {"x": 1, "x": 1}, "a": {"y": 1, "y": 1}}', ["a.x", "a", "a.y"]),
        ('[{"op": 1, "op": 2}]', ["[0].op"]),
        ('{"\\u0061": 1, "a": 2}', ["a"]),
        ('{"n": ' + "9" * 5000 + ', "n": 1}', []),
        ("7", []),
    ],
)
def test_paths(text, paths):
    assert repeated_fields(text.encode()) == paths


values = st.recursive(
    st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=20,
)


@given(values)
def test_what_a_serialiser_writes_repeats_nothing(value):
    assert repeated_fields(json.dumps(value).encode()) == []
