"""A channel as a consumer with keys and a memory sees it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ferryline.model_runtime.follower.trusted import FURTHEST_BACK, TrustedChannel
from ferryline.registry import Registry
from ferryline.registry.documents import ChannelEntry, ModelFacts
from ferryline.registry.errors import BrokenChainError, UsageError
from ferryline.registry.ratchet import Mark, Ratchet
from ferryline.registry.signing.policy import SignaturePolicy
from ferryline.registry.signing.seal import Seal
from ferryline.registry.stores.memory import MemoryStore
from tests.faulty_store import CountingStore
from tests.registry.signing_keys import Keys, seal, verifier

FACTS = ModelFacts(opset=17, ir_version=8, inputs=(), outputs=())
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


class Street:
    """A signed channel, whoever forges entries on it, and consumers that look at it."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.memory = MemoryStore()
        self.store = CountingStore(self.memory)
        self.key = Keys()
        self.operator = Registry(
            self.memory,
            actor="tester",
            clock=lambda: NOW,
            seal=Seal(self.key.signer, verifier(self.key), timedelta(hours=1)),
        )
        for number in range(3):
            self.operator.publish("digits", b"model %d" % number, FACTS)

    def promote(self, *versions: int) -> ChannelEntry:
        entries = [self.operator.promote("digits", version, force=True) for version in versions]
        return entries[-1]

    def path(self, generation: int) -> str:
        return f"models/digits/channels/production/{generation:010d}.json"

    def forge(self, generation: int, **fields: object) -> None:
        before = self.operator.channel("digits").get(generation - 1)
        raw = orjson.loads(before.encode()) | {
            "generation": generation, "previous": before.digest, "op_id": "forged", "signature": None,
        }  # fmt: skip
        self.memory.put(self.path(generation), orjson.dumps(raw | fields, option=orjson.OPT_SORT_KEYS))

    def ratchet(self) -> Ratchet:
        return Ratchet(self.state, self.store.url, "digits", "production")

    def consumer(self, *, remembers: bool = True, sealed: Seal | None = None) -> TrustedChannel:
        channel = Registry(self.store, seal=sealed or seal(None, self.key)).channel("digits")
        return TrustedChannel(channel, self.ratchet() if remembers else None)


@pytest.fixture
def street(tmp_path: Path) -> Street:
    return Street(tmp_path)


def found(consumer: TrustedChannel, handled: ChannelEntry | None = None) -> ChannelEntry:
    news = consumer.news(handled)
    assert news is not None
    return news.entry


def test_the_newest_entry_is_found_and_remembered(street: Street) -> None:
    consumer = street.consumer()
    assert consumer.news(None) is None
    street.promote(1, 2)
    first = found(consumer)
    assert first.generation == 2
    assert consumer.news(first) is None
    street.promote(3)
    assert found(consumer, first).generation == 3
    mark = street.ratchet().mark()
    assert mark is not None
    assert mark.generation == 3


def test_a_poll_that_finds_nothing_is_one_read(street: Street) -> None:
    street.promote(1)
    consumer = street.consumer()
    handled = found(consumer)
    street.store.reset()
    assert consumer.news(handled) is None
    assert street.store.total == 1


def test_a_forged_head_is_passed_over_then_refused_then_left_behind(street: Street) -> None:
    street.promote(1)
    consumer = street.consumer()
    handled = found(consumer)
    street.promote(2)
    street.forge(3, version=3, contract_change=True)
    news = consumer.news(handled)
    assert news is not None
    assert (news.entry.generation, news.trusted) == (2, True)
    handled = news.entry
    assert found(consumer, handled).generation == 3  # to be refused, where people see it
    handled = found(consumer, handled)
    assert consumer.news(handled) is None
    street.promote(1)
    news = consumer.news(handled)
    assert news is not None
    assert (news.entry.generation, news.trusted) == (4, True)
    assert not consumer.allows_change(street.operator.channel("digits").get(1), news.entry)


def test_a_trusted_entry_anywhere_between_allows_another_contract(street: Street) -> None:
    first = street.promote(1)
    street.operator.promote("digits", 2, allow_contract_change=True)
    second, third = street.operator.channel("digits").require_head(), street.promote(3)
    consumer = street.consumer()
    assert consumer.allows_change(first, third)
    assert consumer.allows_change(first, second)
    assert not consumer.allows_change(second, third)


@pytest.mark.parametrize("forged", [1, 3])
def test_the_number_of_a_forged_entry_that_was_taken_out_is_free_for_a_signed_one(
    street: Street, forged: int
) -> None:
    street.promote(1)
    consumer = street.consumer()
    handled = found(consumer)
    for generation in range(2, 2 + forged):
        street.forge(generation, version=3)
        handled = found(consumer, handled)
    assert consumer.news(handled) is None
    for generation in range(2, 2 + forged):
        street.memory.delete(street.path(generation))
    signed = street.promote(2)  # generation 2, where a forged one lay
    assert found(consumer, handled).digest == signed.digest
    assert consumer.news(signed) is None


def test_a_log_without_anything_trusted_costs_one_read_a_poll(street: Street) -> None:
    street.promote(1)
    channel = Registry(street.store, seal=seal(None, Keys("other"))).channel("digits")
    clock = iter([0.0, 0.0, 0.0, 1.0, 1.0, 99.0, 99.0, 99.0, 99.0])
    consumer = TrustedChannel(channel, clock=lambda: next(clock))
    handled = found(consumer)
    street.store.reset()
    assert consumer.news(handled) is None
    assert street.store.total == 1
    street.promote(2)
    assert found(consumer, handled).generation == 2


@pytest.mark.parametrize("remembers", [True, False])
def test_a_consumer_that_starts_under_attack_serves_the_newest_it_can_trust(
    street: Street, *, remembers: bool
) -> None:
    street.promote(1)
    found(street.consumer())
    street.promote(2)
    for generation in (3, 4, 5):
        street.forge(generation, version=3)
    assert found(street.consumer(remembers=remembers)).generation == 2


def test_a_flood_of_forged_entries_hides_nothing_from_who_remembers(street: Street) -> None:
    street.promote(1)
    found(street.consumer())
    for generation in range(2, FURTHEST_BACK + 10):
        street.forge(generation, version=3)
    assert found(street.consumer()).generation == 1
    newest = found(street.consumer(remembers=False))
    assert newest.generation == FURTHEST_BACK + 9
    assert newest.signature is None  # refused by the gate, at no cost of endless reading


def test_an_entry_far_beyond_the_head_is_named(street: Street) -> None:
    street.promote(1)
    known = street.consumer()
    handled = found(known)
    street.memory.put(street.path(500), street.memory.get(street.path(1)).data)
    street.memory.delete(street.path(500))
    street.forge(2, version=3)
    raw = orjson.loads(street.memory.get(street.path(2)).data) | {"generation": 9_999_999_999}
    street.memory.delete(street.path(2))
    street.memory.put(street.path(9_999_999_999), orjson.dumps(raw))
    assert known.news(handled) is None
    assert found(street.consumer()).generation == 1
    with pytest.raises(BrokenChainError, match="generation 9999999999 of digits:production, the newest, and"):
        street.consumer(remembers=False).news(None)


def remove_the_newest(street: Street) -> None:
    street.memory.delete(street.path(3))


def remove_all(street: Street) -> None:
    for generation in (1, 2, 3):
        street.memory.delete(street.path(generation))


def replace_by_another_log(street: Street) -> None:
    remove_all(street)
    street.promote(3, 2, 1)


def replace_by_a_longer_log(street: Street) -> None:
    remove_all(street)
    street.promote(3, 2, 1, 2, 3)


@pytest.mark.parametrize(
    "attack", [remove_the_newest, remove_all, replace_by_another_log, replace_by_a_longer_log]
)
def test_a_log_that_was_rolled_back_is_refused_after_a_restart(
    street: Street, attack: Callable[[Street], None]
) -> None:
    street.promote(1, 2, 3)
    found(street.consumer())
    attack(street)
    with pytest.raises(BrokenChainError, match="cut, replaced or restored") as refused:
        street.consumer().news(None)
    ratchet = street.ratchet()
    assert str(ratchet.file) in str(refused.value)
    # the way out that the message names
    ratchet.file.unlink()
    street.consumer().news(None)


def test_the_memory_works_without_keys_too(street: Street) -> None:
    plain = Seal()
    street.promote(1, 2, 3)
    found(street.consumer(sealed=plain))
    remove_the_newest(street)
    with pytest.raises(BrokenChainError):
        street.consumer(sealed=plain).news(None)


def test_what_is_not_trusted_is_not_remembered(street: Street) -> None:
    street.promote(1)
    street.forge(2, version=3)
    consumer = street.consumer()
    found(consumer, found(consumer))
    mark = street.ratchet().mark()
    assert mark == Mark(1, street.operator.channel("digits").get(1).digest)


def test_a_damaged_memory_stops_a_start_and_says_how_to_go_on(street: Street) -> None:
    street.promote(1)
    found(street.consumer())
    street.ratchet().file.write_text("{")
    with pytest.raises(UsageError, match="is damaged"):
        street.consumer().news(None)


def test_under_optional_an_unsigned_entry_counts_and_a_wrong_one_does_not(street: Street) -> None:
    optional = seal(None, street.key, policy=SignaturePolicy.OPTIONAL)
    street.promote(1)
    consumer = street.consumer(sealed=optional)
    handled = found(consumer)
    street.forge(2, version=2)
    handled = found(consumer, handled)
    assert consumer.newest is handled
    signature = orjson.loads(street.memory.get(street.path(1)).data)["signature"]
    street.forge(3, version=3, signature=signature)
    assert found(consumer, handled).generation == 3
    assert consumer.newest is handled


def test_freshness_ends_and_is_renewed(street: Street) -> None:
    street.promote(1)
    consumer = street.consumer()
    handled = found(consumer)
    assert consumer.newest is not None
    assert consumer.newest.expires_at == NOW + timedelta(hours=1)
    street.forge(2, expires_at="2099-01-01T00:00:00Z")
    handled = found(consumer, handled)
    assert consumer.newest.generation == 1
    entry = street.operator.promote("digits", 1, force=True)
    found(consumer, handled)
    assert consumer.newest.generation == entry.generation


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(["sign", "forge", "poll", "restart"]), max_size=25))
def test_in_any_history_the_newest_signed_entry_is_found_and_none_older_after_it(
    tmp_path_factory: pytest.TempPathFactory, steps: list[str]
) -> None:
    street = Street(tmp_path_factory.mktemp("state"))
    consumer, handled = street.consumer(), None
    generation, signed, served = 0, 0, 0
    for step in [*steps, "poll", "restart", "poll"]:
        if step == "sign":
            generation = signed = street.promote(1 + generation % 3).generation
        elif step == "forge" and generation:
            generation += 1
            street.forge(generation, version=3)
        elif step == "restart":
            consumer, handled = street.consumer(), None
        elif step == "poll":
            while (news := consumer.news(handled)) is not None:
                handled = news.entry
                if handled.signature is not None:
                    assert handled.generation >= served
                    served = handled.generation
            assert served == signed
