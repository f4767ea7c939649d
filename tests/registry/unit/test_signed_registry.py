"""A registry with keys: what writers sign and refuse, under attack and while keys change."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import orjson
import pytest

from ferryline.registry import Registry
from ferryline.registry.documents import ChannelEntry, Manifest, ModelFacts
from ferryline.registry.errors import BrokenChainError, NotFoundError, RefusedError
from ferryline.registry.names import ModelReference
from ferryline.registry.signing.policy import SignaturePolicy
from ferryline.registry.signing.seal import UNSEALED, Seal
from ferryline.registry.stores.memory import MemoryStore
from tests.registry.signing_keys import Keys, seal, verifier

FACTS = ModelFacts(opset=17, ir_version=8, inputs=(), outputs=())
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
OFF = SignaturePolicy.OFF
OPTIONAL = SignaturePolicy.OPTIONAL


class Shop:
    """One store, and registries with different keys on it."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.now = NOW
        self.trainer = Keys("trainer")
        self.signed = self.registry(seal(self.trainer))
        self.plain = self.registry()

    def registry(self, sealed: Seal = UNSEALED) -> Registry:
        return Registry(self.store, actor="tester", clock=lambda: self.now, seal=sealed)

    def publish(self, count: int, registry: Registry | None = None) -> None:
        for _ in range(count):
            number = (registry or self.plain).versions("digits").newest() + 1
            (registry or self.signed).publish("digits", b"model %d" % number, FACTS)

    def key(self, generation: int, channel: str = "production") -> str:
        return f"models/digits/channels/{channel}/{generation:010d}.json"

    def forge(self, generation: int, **fields: object) -> None:
        """Write an entry as somebody without a key would, from the newest one."""
        newest = self.plain.channel("digits").require_head()
        raw = orjson.loads(newest.encode()) | {
            "generation": generation, "previous": newest.digest, "op_id": "forged", "signature": None,
        }  # fmt: skip
        self.store.put(self.key(generation), orjson.dumps(raw | fields, option=orjson.OPT_SORT_KEYS))


@pytest.fixture
def shop() -> Shop:
    return Shop()


def refused(change: Callable[[], object]) -> str:
    with pytest.raises(RefusedError) as error:
        change()
    assert error.value.gate == "signature"
    return str(error.value)


def test_all_that_is_written_is_signed_and_verifies(shop: Shop) -> None:
    shop.publish(3)
    for version in (1, 2, 3):
        shop.signed.promote("digits", version)
    shop.signed.rollback("digits")
    shop.signed.release("digits")
    shop.signed.hold("digits")
    shop.signed.promote("digits", 3, force=True)
    shop.signed.promote("digits", 1, canary=10.0)
    judge = verifier(shop.trainer)
    for entry in shop.plain.channel("digits").history():
        judge.require(entry, what="it")
    for manifest in shop.plain.versions("digits").all():
        judge.require(manifest, what="it")
        assert shop.signed.versions("digits").load(manifest)


def test_without_keys_documents_are_as_they_were(shop: Shop) -> None:
    shop.publish(1, shop.plain)
    assert shop.plain.versions("digits").get(1).signature is None
    assert shop.plain.promote("digits", 1).signature is None


def test_a_writer_without_a_key_writes_nothing_that_would_be_refused(shop: Shop) -> None:
    shop.publish(2)
    shop.signed.promote("digits", 1)
    reader = shop.registry(seal(None, shop.trainer))
    before = sorted(item.key for item in shop.store.list(""))
    assert "Set FERRY_SIGNING_KEY" in refused(lambda: reader.promote("digits", 2))
    assert "Set FERRY_SIGNING_KEY" in refused(lambda: reader.promote("digits", 2, dry_run=True))
    assert "Set FERRY_SIGNING_KEY" in refused(lambda: reader.publish("digits", b"new", FACTS))
    stranger = shop.registry(seal(Keys("stranger"), shop.trainer))
    assert "not trusted here" in refused(lambda: stranger.hold("digits"))
    assert "not trusted here" in refused(lambda: stranger.publish("digits", b"new", FACTS))
    assert sorted(item.key for item in shop.store.list("")) == before


def test_a_forged_version_is_not_promoted_and_not_handed_out(shop: Shop) -> None:
    shop.publish(1)
    shop.publish(1, shop.plain)
    assert "the manifest of digits@2 is not signed" in refused(lambda: shop.signed.promote("digits", 2))
    forged = shop.signed.versions("digits").get(2)
    refused(lambda: shop.signed.versions("digits").load(forged))
    assert shop.registry(seal(None, shop.trainer, policy=OPTIONAL)).versions("digits").load(forged)


@pytest.mark.parametrize("policy", [OPTIONAL, SignaturePolicy.REQUIRED])
def test_an_altered_manifest_is_refused(shop: Shop, policy: SignaturePolicy) -> None:
    shop.publish(1)
    key = "models/digits/versions/0000000001.json"
    shop.store.put(key, shop.store.get(key).data.replace(b'"opset":17', b'"opset":18'))
    registry = shop.registry(seal(shop.trainer, policy=policy))
    assert "does not match its content" in refused(lambda: registry.promote("digits", 1))
    assert registry.versions("digits").get(1).opset == 18  # one can still look at it


def test_nothing_is_built_on_a_forged_head_unless_a_person_forces_it(shop: Shop) -> None:
    shop.publish(2)
    shop.signed.promote("digits", 1)
    shop.forge(2, version=2, held=True, contract_change=True)
    for change in (
        lambda: shop.signed.promote("digits", 2),
        lambda: shop.signed.hold("digits"),
        lambda: shop.signed.release("digits"),
        lambda: shop.signed.rollback("digits", to=1),
    ):
        assert "generation 2 of digits:production is not signed" in refused(change)
    over = shop.signed.promote("digits", 1, force=True, reason="over a forged entry")
    assert (over.generation, over.version) == (3, 1)
    assert [entry.generation for entry in shop.signed.channel("digits").history()] == [1, 2, 3]
    # what the forger wrote is never gone back to
    assert "generation 2 of digits:production is not signed" in refused(
        lambda: shop.signed.rollback("digits")
    )
    assert shop.signed.rollback("digits", to=2).version == 2


def test_an_old_entry_under_a_new_generation_is_refused(shop: Shop) -> None:
    shop.publish(2)
    for version in (1, 2):
        shop.signed.promote("digits", version)
    shop.store.put(shop.key(3), shop.store.get(shop.key(1)).data)
    with pytest.raises(BrokenChainError, match="describes generation 1"):
        shop.signed.channel("digits").head()
    # with its number, and even its link, put right
    signature = orjson.loads(shop.store.get(shop.key(1)).data)["signature"]
    shop.store.delete(shop.key(3))
    shop.forge(3, version=1, signature=signature)
    assert "does not match" in refused(lambda: shop.signed.promote("digits", 1))


def test_an_entry_of_another_channel_is_refused(shop: Shop) -> None:
    shop.publish(2)
    shop.signed.promote("digits", 1)
    shop.signed.promote("digits", 1, "staging")
    staged = shop.signed.promote("digits", 2, "staging")
    copied = shop.store.get(shop.key(2, "staging")).data
    shop.store.put(shop.key(2), copied)
    with pytest.raises(BrokenChainError, match="digits:staging"):
        shop.signed.channel("digits").head()
    shop.store.delete(shop.key(2))
    assert staged.signature is not None
    shop.forge(2, version=2, signature=staged.signature.model_dump())
    assert "does not match" in refused(lambda: shop.signed.promote("digits", 1))


def test_optional_lets_the_unsigned_past_and_nothing_wrong(shop: Shop) -> None:
    shop.publish(2, shop.plain)
    shop.plain.promote("digits", 1)
    optional = shop.registry(seal(shop.trainer, policy=OPTIONAL))
    assert optional.promote("digits", 2).signature is not None
    data = shop.store.get(shop.key(2)).data
    shop.store.put(shop.key(2), data.replace(b'"version":2', b'"version":1'))
    assert "does not match" in refused(lambda: optional.hold("digits"))


def test_keys_are_rotated_with_an_overlap(shop: Shop) -> None:
    old, new = Keys("2026", not_after=NOW + timedelta(days=1)), Keys("2027")
    before = shop.registry(seal(old))
    shop.publish(2, before)
    before.promote("digits", 1)
    overlapping = shop.registry(seal(old, old, new))
    overlapping.promote("digits", 2)
    after = shop.registry(seal(new, old, new))
    shop.publish(1, after)
    assert after.promote("digits", 3).generation == 3
    # the old key's time is over: it signs no more, what it signed stays good
    shop.now = NOW + timedelta(days=2)
    assert "ended on 2026-03-02" in refused(lambda: overlapping.promote("digits", 1))
    assert after.rollback("digits").version == 2
    assert after.rollback("digits").version == 1
    # taken out of the trusted keys, what it signed is trusted no more
    only_new = shop.registry(seal(new))
    assert only_new.release("digits").generation == 6
    assert "not trusted here" in refused(lambda: only_new.promote("digits", 2))
    assert only_new.promote("digits", 3).version == 3


def test_a_clock_set_back_a_day_changes_no_order(shop: Shop) -> None:
    shop.publish(2)
    shop.signed.promote("digits", 1)
    shop.now = NOW - timedelta(days=1)
    late = shop.signed.promote("digits", 2)
    assert late.generation == 2
    head = shop.signed.channel("digits").require_head()
    assert (head.version, head.at) == (2, shop.now)
    assert shop.signed.rollback("digits").version == 1


def test_every_entry_renews_the_freshness_of_its_channel(shop: Shop) -> None:
    fresh = shop.registry(Seal(shop.trainer.signer, verifier(shop.trainer), timedelta(hours=1)))
    shop.publish(1, fresh)
    assert fresh.promote("digits", 1).expires_at == NOW + timedelta(hours=1)
    shop.now = NOW + timedelta(minutes=50)
    assert fresh.hold("digits").expires_at == NOW + timedelta(minutes=110)
    assert shop.signed.release("digits").expires_at is None


def test_going_back_needs_trust_in_where_it_leads(shop: Shop) -> None:
    shop.publish(2)
    optional = shop.registry(seal(None, shop.trainer, policy=OPTIONAL))
    optional.promote("digits", 1)
    shop.registry(seal(shop.trainer, policy=OPTIONAL)).promote("digits", 2)
    assert "generation 1 of digits:production is not signed" in refused(
        lambda: shop.signed.rollback("digits")
    )
    assert shop.signed.rollback("digits", to=1).version == 1


def test_looking_is_allowed_and_taking_is_not(shop: Shop) -> None:
    shop.publish(2)
    shop.signed.promote("digits", 1)
    shop.forge(2, version=2)
    channel, version = ModelReference("digits"), ModelReference("digits", version=2)
    assert shop.signed.resolve(channel).version == 2
    assert "generation 2 of digits:production is not signed" in refused(
        lambda: shop.signed.resolve(channel, trusted=True)
    )
    assert shop.signed.resolve(version, trusted=True).version == 2
    shop.publish(1, shop.plain)
    assert "digits@3 is not signed" in refused(
        lambda: shop.signed.resolve(ModelReference("digits", version=3), trusted=True)
    )


def test_what_is_said_of_a_signature(shop: Shop) -> None:
    shop.publish(1)
    shop.publish(1, shop.plain)
    signed, unsigned = shop.plain.versions("digits").all()
    key = shop.trainer.trusted.key_id
    optional = seal(None, shop.trainer, policy=OPTIONAL)
    assert (UNSEALED.verdict(signed), UNSEALED.verdict(unsigned)) == (f"by key {key}, not verified here", "")
    assert (optional.verdict(signed), optional.verdict(unsigned)) == (f"by key {key}, trusted", "no")
    assert shop.signed.seal.verdict(unsigned).startswith("refused: the manifest of digits@2 is not signed")


def test_what_is_not_there_is_still_not_found(shop: Shop) -> None:
    with pytest.raises(NotFoundError):
        shop.signed.promote("digits", 1)


def test_a_document_keeps_its_signature_through_a_copy_of_the_store(shop: Shop) -> None:
    shop.publish(1)
    shop.signed.promote("digits", 1)
    judge = verifier(shop.trainer)
    for kind, key in ((Manifest, "models/digits/versions/0000000001.json"), (ChannelEntry, shop.key(1))):
        document = kind.decode(shop.store.get(key).data, key=key)
        judge.require(document, what="it")
        assert document.stored_bytes == shop.store.get(key).data
