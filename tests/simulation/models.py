"""The versions of a simulated registry: files that are a few words, and who signs for them."""

from __future__ import annotations

import functools
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ferryline.registry import Registry, keys
from ferryline.registry.digests import digest_of
from ferryline.registry.documents import GoldenRows, ModelFacts, TensorSpec, TrainingRecord
from ferryline.registry.signing.pem import key_id_of
from ferryline.registry.signing.policy import SignaturePolicy
from ferryline.registry.signing.seal import UNSEALED, Seal
from ferryline.registry.signing.signer import Signer
from ferryline.registry.signing.trust import TrustedKey
from ferryline.registry.signing.verifier import Keyring, Verifier
from tests.simulation.kernel import Kernel
from tests.simulation.script import OTHER_CONTRACT, VERSIONS
from tests.simulation.store import WorldStore

MODEL = "digits"
CHANNEL = "production"
PREFIX = keys.channel(MODEL, CHANNEL)


def content_of(number: int, *, other: bool) -> bytes:
    """The bytes of a model file."""
    return b"model %d %s" % (number, b"B" if other else b"A")


@functools.cache
def facts_of(*, other: bool) -> ModelFacts:
    """One contract, or the other."""
    return ModelFacts(
        opset=17,
        ir_version=8,
        inputs=(TensorSpec(name="input", dtype="float32", shape=(-1, 5 if other else 4)),),
        outputs=(TensorSpec(name="label", dtype="int64", shape=(-1,)),),
    )


def training_of(number: int, *, other: bool) -> TrainingRecord:
    """What a publisher says of it."""
    rows = [[0.0] * (5 if other else 4)]
    return TrainingRecord(golden=GoldenRows(inputs={"input": rows}, outputs={"label": [number]}))


def has_other_contract(version: int) -> bool:
    """Whether a version that was there from the beginning has the other contract."""
    return VERSIONS - OTHER_CONTRACT < version <= VERSIONS


@functools.cache
def seal_of(*, signed: bool) -> Seal:
    """Who signs, and whom to trust."""
    if not signed:
        return UNSEALED
    private = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    raw = private.public_key().public_bytes_raw()
    trusted = TrustedKey(key_id_of(raw), raw, "operators", not_after=None)
    return Seal(Signer(private), Verifier(Keyring([trusted]), SignaturePolicy.REQUIRED))


@functools.cache
def beginning(*, signed: bool) -> tuple[dict[str, Any], dict[str, ModelFacts]]:
    """A registry with the first versions, and the facts of their files by digest."""
    store = WorldStore(Kernel())
    registry = Registry(store, actor="before", seal=seal_of(signed=signed))
    facts: dict[str, ModelFacts] = {}
    for number in range(1, VERSIONS + 1):
        other = has_other_contract(number)
        data = content_of(number, other=other)
        facts[digest_of(data)] = facts_of(other=other)
        registry.publish(MODEL, data, facts_of(other=other), training_of(number, other=other))
    return store.snapshot(), facts
