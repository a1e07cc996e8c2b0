"""Core types to JSON and back, unchanged; versions apart understand each other."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.core.admin import DriveReport, MirrorReport, StatusReport
from appliance.core.documents import from_document, to_document
from appliance.core.errors import InvalidInput
from appliance.core.jobs import Job
from tests.unit.admin.fakes import FULL, MIRROR, RUNNING, STATUS


@pytest.mark.parametrize("value", [FULL, MIRROR, STATUS, RUNNING])
def test_each_type_survives_json(value: object) -> None:
    document = json.loads(json.dumps(to_document(value)))
    assert from_document(type(value), document) == value


@given(st.builds(DriveReport) | st.builds(MirrorReport) | st.builds(StatusReport) | st.builds(Job))
def test_any_value_survives_json(value: object) -> None:
    document = json.loads(json.dumps(to_document(value)))
    assert from_document(type(value), document) == value


def test_fields_of_a_newer_version_are_passed_over_and_missing_ones_default() -> None:
    document = {"id": "j", "title": "t", "state": "done", "invented_later": 1}
    assert from_document(Job, document).result == ""


@pytest.mark.parametrize(
    "changes",
    [
        {"state": "dancing"},
        {"done": "3"},
        {"done": True},
        {"done": 1.5},
        {"title": None},
        {"eta_s": "soon"},
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, Any]) -> None:
    document = {**to_document(RUNNING), **changes}
    with pytest.raises(InvalidInput):
        from_document(Job, document)


@pytest.mark.parametrize("document", [None, [], "x", 1, {}, {"id": "j"}])
def test_what_is_no_job_is_refused(document: object) -> None:
    with pytest.raises(InvalidInput):
        from_document(Job, document)


def test_a_list_is_needed_where_a_tuple_is_meant() -> None:
    with pytest.raises(InvalidInput):
        from_document(MirrorReport, {**to_document(MIRROR), "members": {}})


def test_what_has_no_place_is_a_bug_of_ours() -> None:
    @dataclass(frozen=True)
    class Strange:
        value: object

    with pytest.raises(TypeError):
        to_document(Strange(object()))
