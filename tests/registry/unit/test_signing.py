"""Signatures of documents: what is accepted, and that nothing else is."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta, timezone

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ferryline.registry.documents import (
    Blob,
    Canary,
    ChannelEntry,
    Evaluation,
    GoldenRows,
    Manifest,
    Operation,
    Signature,
    TensorSpec,
)
from ferryline.registry.errors import FerryError, RefusedError
from ferryline.registry.signing.canonical import signed_bytes
from ferryline.registry.signing.policy import SignaturePolicy
from tests.registry.signing_keys import Keys, verifier

DIGEST = "sha256:" + "a" * 64
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
MINE = Keys("mine")
THEIRS = Keys("theirs")

texts = st.text(max_size=20).filter(lambda text: text.isascii() or text.isprintable())
moments = st.datetimes(
    min_value=datetime(2000, 1, 1),  # noqa: DTZ001 - hypothesis adds the zone
    max_value=datetime(2100, 1, 1),  # noqa: DTZ001 - likewise
    timezones=st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=30))]),
)
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
# what only a newer program knows
extras = st.dictionaries(texts.map(lambda name: f"new_{name}"), json_values, max_size=3)


@st.composite
def entries(draw: st.DrawFn) -> ChannelEntry:
    return ChannelEntry(
        model="digits",
        channel=draw(st.sampled_from(["production", "staging"])),
        generation=draw(st.integers(1, 10**6)),
        version=draw(st.integers(1, 10**6)),
        blob_digest=DIGEST,
        manifest_digest=DIGEST,
        operation=draw(st.sampled_from(Operation)),
        held=draw(st.booleans()),
        contract_change=draw(st.booleans()),
        actor=draw(texts),
        reason=draw(texts),
        at=draw(moments),
        op_id="x",
        previous=draw(st.none() | st.just(DIGEST)),
        canary=draw(
            st.none()
            | st.builds(
                Canary,
                version=st.integers(1, 9),
                blob_digest=st.just(DIGEST),
                manifest_digest=st.just(DIGEST),
                percent=st.floats(0.1, 99),
            )
        ),
        **draw(extras),
    )


@st.composite
def manifests(draw: st.DrawFn) -> Manifest:
    floats = st.floats(allow_nan=False, allow_infinity=False)
    return Manifest(
        model="digits",
        version=draw(st.integers(1, 10**6)),
        created_at=draw(moments),
        actor=draw(texts),
        op_id="x",
        blob=Blob(digest=DIGEST, size=draw(st.integers(0, 2**40))),
        opset=17,
        ir_version=8,
        inputs=(TensorSpec(name=draw(texts), dtype="float32", shape=(-1, 4)),),
        outputs=(),
        classes=draw(st.none() | st.just((True, 1, "one"))),
        golden=GoldenRows(inputs={"input": [draw(st.lists(floats, max_size=4))]}, outputs={}),
        evaluation=Evaluation(metrics=draw(st.dictionaries(texts, floats, max_size=3))),
        **draw(extras),
    )


documents = entries() | manifests()


def entry(**fields: object) -> ChannelEntry:
    known = {
        "model": "digits", "channel": "production", "generation": 3, "version": 2, "blob_digest": DIGEST,
        "manifest_digest": DIGEST, "operation": "promote", "actor": "a", "at": NOW, "op_id": "x",
        "previous": DIGEST,
    }  # fmt: skip
    return ChannelEntry.model_validate(known | fields)


def manifest(**fields: object) -> Manifest:
    known = {
        "model": "digits", "version": 2, "created_at": NOW, "actor": "a", "op_id": "x", "opset": 17,
        "ir_version": 8, "inputs": (), "outputs": (), "blob": {"digest": DIGEST, "size": 3},
    }  # fmt: skip
    return Manifest.model_validate(known | fields)


def read_again(document: Manifest | ChannelEntry) -> Manifest | ChannelEntry:
    return type(document).decode(document.encode(), key="k")


@given(documents)
def test_what_is_signed_is_accepted_after_it_was_stored(document: Manifest | ChannelEntry) -> None:
    signed = MINE.signer.sign(document)
    verifier(MINE).require(signed, what="it")
    verifier(THEIRS, MINE).require(read_again(signed), what="it")
    with pytest.raises(RefusedError, match="not trusted here"):
        verifier(THEIRS).require(read_again(signed), what="it")


@given(documents, st.data())
def test_a_change_of_any_byte_is_refused(document: Manifest | ChannelEntry, data: st.DataObject) -> None:
    stored = bytearray(MINE.signer.sign(document).encode())
    stored[data.draw(st.integers(0, len(stored) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(FerryError):
        verifier(MINE).require(type(document).decode(bytes(stored), key="k"), what="it")


@given(documents, st.data())
def test_a_change_of_any_field_is_refused(document: Manifest | ChannelEntry, data: st.DataObject) -> None:
    raw = orjson.loads(MINE.signer.sign(document).encode())
    name = data.draw(st.sampled_from(sorted(set(raw) - {"signature"})))
    changed = data.draw(
        json_values.filter(lambda value: value != raw[name] or type(value) is not type(raw[name]))
    )
    stored = orjson.dumps(raw | {name: changed}, option=orjson.OPT_SORT_KEYS)
    with pytest.raises(FerryError):
        verifier(MINE).require(type(document).decode(stored, key="k"), what="it")


def test_fields_of_a_newer_program_are_covered() -> None:
    stored = MINE.signer.sign(entry(region="eu")).encode()
    verifier(MINE).require(ChannelEntry.decode(stored, key="k"), what="it")
    for forged in (stored.replace(b'"eu"', b'"us"'), stored.replace(b'"region":"eu",', b"")):
        assert forged != stored
        with pytest.raises(RefusedError, match="does not match its content"):
            verifier(MINE).require(ChannelEntry.decode(forged, key="k"), what="it")


def test_a_document_of_an_older_program_without_todays_fields_is_accepted() -> None:
    raw = orjson.loads(entry().encode())
    del raw["canary"], raw["signature"]
    older = orjson.dumps(raw, option=orjson.OPT_SORT_KEYS)
    content = signed_bytes("channel entry", older)
    assert content is not None
    value = base64.b64encode(MINE.private.sign(content)).decode()
    signature = {"key_id": MINE.signer.key_id, "algorithm": "ed25519", "value": value}
    stored = orjson.dumps(raw | {"signature": signature}, option=orjson.OPT_SORT_KEYS)
    verifier(MINE).require(ChannelEntry.decode(stored, key="k"), what="it")


def test_the_signed_bytes_are_those_the_document_page_describes() -> None:
    assert signed_bytes("manifest", b'{"a":1,"signature":null}') == b'modelferry/manifest/v1\n{"a":1}'


@pytest.mark.parametrize(
    "other",
    [b'{"a": 1}', b'{"b":1,"a":1}', b'{"a":1,"a":1}', b'{"a":1}\n', b'{"a":1e0}', b'{"a":"\\u0061"}'],
)
def test_bytes_that_are_not_canonical_are_never_signed(other: bytes) -> None:
    assert signed_bytes("manifest", other) is None


def test_a_key_written_twice_is_refused() -> None:
    stored = MINE.signer.sign(entry()).encode()
    forged = stored.replace(b'"version":2', b'"version":2,"version":2')
    with pytest.raises(RefusedError, match="does not match"):
        verifier(MINE).require(ChannelEntry.decode(forged, key="k"), what="it")


def test_a_signature_that_leaves_its_algorithm_out_is_refused() -> None:
    stored = MINE.signer.sign(entry()).encode()
    other_form = stored.replace(b'"algorithm":"ed25519",', b"")
    assert other_form != stored
    with pytest.raises(RefusedError, match="does not match"):
        verifier(MINE).require(ChannelEntry.decode(other_form, key="k"), what="it")
    verifier(MINE).require(ChannelEntry.decode(stored, key="k"), what="it")


def test_the_signature_of_a_manifest_fits_no_channel_entry() -> None:
    shared = MINE.signer.sign(manifest()).signature
    with pytest.raises(RefusedError, match="does not match"):
        verifier(MINE).require(entry(signature=shared), what="it")
    # not even where one object could be read as both
    both = orjson.loads(manifest().encode()) | orjson.loads(entry().encode())
    signed = MINE.signer.sign(Manifest.model_validate(both))
    verifier(MINE).require(signed, what="it")
    with pytest.raises(RefusedError, match="does not match"):
        verifier(MINE).require(ChannelEntry.decode(signed.encode(), key="k"), what="it")


def test_the_signature_of_one_channel_fits_no_other() -> None:
    signature = MINE.signer.sign(entry()).signature
    for other in (entry(channel="staging"), entry(generation=4), entry(model="letters")):
        with pytest.raises(RefusedError, match="does not match"):
            verifier(MINE).require(other.model_copy(update={"signature": signature}), what="it")


def altered(signature: Signature | None, **fields: object) -> ChannelEntry:
    assert signature is not None
    return entry(signature=signature.model_dump() | fields)


def test_a_signature_has_one_form_only() -> None:
    signature = MINE.signer.sign(entry()).signature
    verifier(MINE).require(altered(signature), what="it")
    assert signature is not None
    value = signature.value
    # the last letter before the padding holds four bits that base64 does not use
    spare = value[:-3] + chr(ord(value[-3]) + 1) + value[-2:]
    for forged in (spare, value + "\n", value[:-4], "", "=", "é" * 8, value[::-1]):
        with pytest.raises(RefusedError, match="does not match"):
            verifier(MINE).require(altered(signature, value=forged), what="it")
    with pytest.raises(RefusedError, match="does not match"):
        verifier(MINE).require(altered(signature, note="unsigned"), what="it")


@pytest.mark.parametrize(
    ("policy", "unsigned", "wrong"),
    [
        (SignaturePolicy.OFF, True, True),
        (SignaturePolicy.OPTIONAL, True, False),
        (SignaturePolicy.REQUIRED, False, False),
    ],
)
def test_policies(policy: SignaturePolicy, *, unsigned: bool, wrong: bool) -> None:
    judge = verifier(MINE, policy=policy)
    judge.require(MINE.signer.sign(entry()), what="it")
    forged = MINE.signer.sign(entry()).model_copy(update={"version": 9})
    for document, admitted in ((entry(), unsigned), (forged, wrong), (THEIRS.signer.sign(entry()), wrong)):
        if admitted:
            judge.require(document, what="it")
            continue
        with pytest.raises(RefusedError) as refused:
            judge.require(document, what="it")
        assert refused.value.gate == "signature"
        assert refused.value.remedy


def test_a_key_signs_until_its_end_and_what_it_signed_stays_valid() -> None:
    ended = Keys("old", not_after=NOW)
    judge = verifier(ended)
    judge.require(ended.signer.sign(entry(at=NOW)), what="it")
    judge.require(ended.signer.sign(manifest(created_at=NOW - timedelta(days=900))), what="it")
    for late in (entry(at=NOW + timedelta(seconds=1)), manifest(created_at=NOW + timedelta(days=1))):
        with pytest.raises(RefusedError, match=r"key [0-9a-f]{16} \(old\) ended on 2026-03-01 12:00:00 UTC"):
            judge.require(ended.signer.sign(late), what="it")


def test_nothing_of_a_hostile_key_id_floods_a_message() -> None:
    hostile = entry(signature={"key_id": "x" * 10_000, "algorithm": "ed25519", "value": ""})
    with pytest.raises(RefusedError) as refused:
        verifier(MINE).require(hostile, what="it")
    assert len(str(refused.value)) < 400
