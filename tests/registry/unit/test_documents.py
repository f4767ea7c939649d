from __future__ import annotations

from datetime import UTC, datetime

import orjson
import pytest

from ferryline.registry.documents import Blob, Heartbeat, Manifest, ModelFacts
from ferryline.registry.errors import CorruptDocumentError, UnknownSchemaError

FACTS = ModelFacts(opset=17, ir_version=8, inputs=(), outputs=())


def manifest() -> Manifest:
    return Manifest(
        model="digits", version=1, created_at=datetime(2026, 1, 2, tzinfo=UTC), actor="a", op_id="x",
        blob=Blob(digest="sha256:" + "a" * 64, size=3), **dict(FACTS),
    )  # fmt: skip


def test_a_document_survives_its_encoding() -> None:
    document = manifest()
    decoded = Manifest.decode(document.encode(), key="k")
    assert decoded.model_dump() == document.model_dump()
    assert decoded.digest == document.digest


def test_the_manifest_is_flat_and_says_its_schema() -> None:
    raw = orjson.loads(manifest().encode())
    assert raw["schema_version"] == "1.0"
    assert raw["blob"] == {"digest": "sha256:" + "a" * 64, "size": 3}
    assert {"opset", "ir_version", "inputs", "outputs", "classes", "lineage", "evaluation", "golden"} <= set(
        raw
    )


def test_unknown_fields_are_kept_and_the_digest_is_of_the_stored_bytes() -> None:
    raw = orjson.loads(manifest().encode()) | {"schema_version": "1.7", "novelty": {"x": 1}}
    stored = orjson.dumps(raw, option=orjson.OPT_INDENT_2)
    document = Manifest.decode(stored, key="k")
    assert orjson.loads(document.encode())["novelty"] == {"x": 1}
    assert document.digest != Manifest.decode(document.encode(), key="k").digest
    assert document.model_copy(update={"version": 2}).digest != document.digest


def test_an_unknown_major_version_is_refused_by_name() -> None:
    raw = orjson.loads(manifest().encode()) | {"schema_version": "2.0"}
    with pytest.raises(UnknownSchemaError, match=r"models/x .*manifest of schema version 2\.0.*upgrade"):
        Manifest.decode(orjson.dumps(raw), key="models/x")


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"", "not JSON"),
        (b"\xff", "not JSON"),
        (b"[]", "not a JSON object"),
        (b"{}", "no schema_version"),
        (b'{"schema_version": 1}', "no schema_version"),
        (b'{"schema_version": "1.0"}', "Field required"),
    ],
)
def test_what_is_no_document_is_said_to_be_none(data: bytes, fault: str) -> None:
    with pytest.raises(CorruptDocumentError, match=fault):
        Heartbeat.decode(data, key="consumers/x.json")


def test_a_digest_of_another_form_is_refused() -> None:
    raw = orjson.loads(manifest().encode())
    raw["blob"]["digest"] = "md5:abc"
    with pytest.raises(CorruptDocumentError, match=r"blob\.digest"):
        Manifest.decode(orjson.dumps(raw), key="k")
