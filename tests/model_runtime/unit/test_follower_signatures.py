"""A follower with keys, a memory and a clock, on real sessions, while somebody writes to its store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson
import pytest

from ferryline.model_runtime.follower import Follower
from ferryline.registry import Registry
from ferryline.registry.digests import digest_of
from ferryline.registry.documents import utc_now
from ferryline.registry.ratchet import Ratchet
from ferryline.registry.signing.seal import Seal
from tests.model_runtime.following import FAST, Setting, Witness, flip_a_bit
from tests.registry.signing_keys import Keys, seal, verifier

DAY = timedelta(days=1)


class Guarded(Setting):
    """A setting whose operator signs and whose follower requires that, and remembers."""

    def __init__(self, folder: Path, *, trusted: tuple[Keys, ...] = ()) -> None:
        super().__init__(folder)
        self.folder = folder
        self.key = Keys()
        self.now = utc_now()
        self.fresh_for: timedelta | None = None
        self.use(self.key)
        self.mallory = Registry(self.memory, actor="mallory")
        self.follower = self.consumer(*(trusted or (self.key,)))

    def use(self, key: Keys) -> None:
        """Sign with `key` from now on."""
        sealed = Seal(key.signer, verifier(key, self.key), self.fresh_for)
        self.registry = Registry(self.memory, actor="tester", clock=lambda: self.now, seal=sealed)

    def consumer(self, *trusted: Keys) -> Follower:
        """Another follower, or the same after a restart."""
        self.witness = Witness()
        return Follower(
            Registry(self.store, seal=seal(None, *trusted)),
            "digits",
            cache=self.folder / "cache",
            state=self.folder / "state",
            settings=FAST,
            observer=self.witness,
        )

    def restart(self, *trusted: Keys) -> None:
        self.follower.stop()
        self.follower = self.consumer(*(trusted or (self.key,)))
        self.follower.start()

    def path(self, generation: int, channel: str = "production") -> str:
        return f"models/digits/channels/{channel}/{generation:010d}.json"

    def forge(self, **fields: object) -> int:
        """Write the next entry as who has no key."""
        head = self.mallory.channel("digits").require_head()
        generation = head.generation + 1
        raw = orjson.loads(head.encode()) | {
            "generation": generation, "previous": head.digest, "op_id": "forged", "signature": None,
        }  # fmt: skip
        self.memory.put_if_absent(
            self.path(generation), orjson.dumps(raw | fields, option=orjson.OPT_SORT_KEYS)
        )
        return generation

    def refusal_of(self, generation: int) -> str:
        self.witness.wait(lambda seen: any(item.target.generation == generation for item in seen.refusals))
        refusal = next(item for item in self.witness.refusals if item.target.generation == generation)
        assert refusal.gate == "signature"
        return refusal.reason


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Guarded]:
    made = Guarded(tmp_path)
    made.follower.start()
    yield made
    made.follower.stop()


def test_what_is_signed_is_served(guarded: Guarded) -> None:
    for winner in (0, 1, 2):
        guarded.serve(winner)
        assert guarded.label() == winner
    entry = guarded.registry.rollback("digits")
    guarded.witness.wait(lambda seen: seen.swaps[-1] == (entry.generation, 2))
    assert guarded.label() == 1
    assert guarded.witness.refusals == []


def unsigned(guarded: Guarded, bad: int) -> int:
    return guarded.mallory.promote("digits", bad).generation


def an_old_entry_again(guarded: Guarded, bad: int) -> int:
    old = guarded.mallory.channel("digits").get(1)
    assert old.signature is not None
    return guarded.forge(version=old.version, signature=old.signature.model_dump(), at=old.at.isoformat())


def one_of_another_channel(guarded: Guarded, bad: int) -> int:
    for _ in range(2):
        staged = guarded.registry.promote("digits", bad, "staging")
    assert staged.signature is not None
    return guarded.forge(
        version=bad, manifest_digest=staged.manifest_digest, blob_digest=staged.blob_digest,
        signature=staged.signature.model_dump(), op_id=staged.op_id, at=staged.at.isoformat(),
    )  # fmt: skip


def by_a_stranger(guarded: Guarded, bad: int) -> int:
    stranger = Keys("stranger")
    return (
        Registry(guarded.memory, actor="stranger", seal=seal(stranger, stranger, guarded.key))
        .promote("digits", bad)
        .generation
    )


@pytest.mark.parametrize(
    ("attack", "text"),
    [
        (unsigned, "is not signed"),
        (an_old_entry_again, "does not match its content"),
        (one_of_another_channel, "does not match its content"),
        (by_a_stranger, "is not trusted here"),
    ],
)
def test_a_forged_generation_is_refused_and_the_last_good_one_goes_on(
    guarded: Guarded, attack: Callable[[Guarded, int], int], text: str
) -> None:
    guarded.serve(0)
    generation = attack(guarded, guarded.publish(1))
    reason = guarded.refusal_of(generation)
    assert f"generation {generation} of digits:production" in reason
    assert text in reason
    assert guarded.label() == 0
    report = guarded.follower.report()
    assert (report.generation, report.refused_generation, report.refused_gate) == (1, generation, "signature")
    assert report.refused_entry_digest == digest_of(guarded.memory.get(guarded.path(generation)).data)
    assert text in str(report.last_error)
    # over it, by a person, and without a restart
    entry = guarded.registry.promote("digits", guarded.publish(2), force=True)
    guarded.witness.wait(lambda seen: seen.swaps[-1][0] == entry.generation)
    assert guarded.label() == 2
    assert guarded.follower.report().last_error is None
    (record,) = guarded.registry.refusals("digits").newest()
    assert (record.gate, record.generation) == ("signature", generation)


def test_a_manifest_that_nobody_signed_is_refused(guarded: Guarded) -> None:
    guarded.serve(0)
    signed = guarded.registry
    guarded.registry = guarded.mallory
    bad = guarded.publish(1)
    # an operator whose settings verify nothing signs the entry all the same
    careless = Registry(guarded.memory, actor="careless", seal=Seal(guarded.key.signer))
    generation = careless.promote("digits", bad).generation
    assert "the manifest of digits@2 is not signed" in guarded.refusal_of(generation)
    guarded.registry = signed
    assert guarded.label() == 0


@pytest.mark.parametrize("trusted", [True, False])
def test_only_a_trusted_entry_allows_a_change_of_contract(guarded: Guarded, *, trusted: bool) -> None:
    guarded.serve(0)
    wide = guarded.publish(1, features=5)
    guarded.store.down = True
    if trusted:
        guarded.registry.promote("digits", wide, allow_contract_change=True)
    else:
        guarded.forge(version=wide, contract_change=True)
    # signed, and without the flag: whether it may serve hangs on the entry before
    guarded.registry.promote("digits", wide, force=True)
    guarded.store.down = False
    if trusted:
        guarded.witness.wait(lambda seen: seen.swaps[-1] == (3, wide))
        return
    guarded.witness.wait(lambda seen: bool(seen.refusals))
    assert guarded.witness.refusals[0].gate == "contract"
    assert guarded.label() == 0


def test_the_newest_signed_entry_is_served_from_under_forged_ones(guarded: Guarded) -> None:
    guarded.serve(0)
    guarded.store.down = True
    good = guarded.registry.promote("digits", guarded.publish(1)).generation
    for _ in range(3):
        last = guarded.forge(version=1)
    guarded.store.down = False
    guarded.witness.wait(lambda seen: seen.swaps[-1][0] == good)
    assert guarded.label() == 1
    guarded.refusal_of(last)


def test_a_restart_under_attack_serves_the_last_signed_generation(guarded: Guarded) -> None:
    guarded.serve(0)
    good = guarded.serve(1)
    forged = guarded.forge(version=1, undoes_to=1)
    guarded.refusal_of(forged)
    guarded.restart()
    guarded.witness.wait(lambda seen: seen.swaps == [(good, 2)])
    guarded.refusal_of(forged)
    assert guarded.label() == 1


def test_a_restart_looks_back_from_what_is_signed_only(guarded: Guarded) -> None:
    for winner in (0, 1):
        guarded.serve(winner)
    guarded.follower.stop()
    bad = guarded.publish(2)
    guarded.registry.promote("digits", bad)
    flip_a_bit(guarded, bad)
    guarded.forge(version=1, undoes_to=1)
    guarded.restart()
    guarded.witness.wait(lambda seen: bool(seen.swaps))
    assert guarded.witness.swaps == [(2, 2)]  # what a rollback leads to, and not where the forger points


def test_keys_change_with_an_overlap(tmp_path: Path) -> None:
    guarded = Guarded(tmp_path)
    new = Keys("new")
    old = Keys("old")
    old.private, old.signer = guarded.key.private, guarded.key.signer
    raw = guarded.key.trusted
    old.trusted = type(raw)(raw.key_id, raw.raw, "old", not_after=guarded.now + DAY)
    guarded.follower = guarded.consumer(old, new)
    guarded.follower.start()
    guarded.serve(0)
    guarded.use(new)
    guarded.serve(1)
    # what the old key signed is still gone back to
    entry = guarded.registry.rollback("digits")
    guarded.witness.wait(lambda seen: seen.swaps[-1] == (entry.generation, 1))
    # the old key's time is over, and its holder signs on
    guarded.now += 2 * DAY
    careless = Seal(guarded.key.signer)
    late = Registry(guarded.memory, actor="late", clock=lambda: guarded.now, seal=careless)
    generation = late.release("digits").generation
    assert "after key" in guarded.refusal_of(generation)
    assert guarded.label() == 0
    guarded.follower.stop()


@pytest.mark.parametrize("cut", [1, 2])
def test_a_log_that_was_cut_is_refused_after_a_restart(guarded: Guarded, cut: int) -> None:
    for winner in (0, 1, 2):
        guarded.serve(winner)
    for generation in range(3, 3 - cut, -1):
        guarded.memory.delete(guarded.path(generation))
    guarded.restart()
    guarded.witness.wait(lambda seen: bool(seen.failures))
    text = guarded.witness.failures[0]
    assert f"digits:production in {guarded.store.url} is at generation {3 - cut} and was at 3 before" in text
    file = Ratchet(guarded.folder / "state", guarded.store.url, "digits", "production").file
    assert f"remove {file} and restart" in text
    assert guarded.follower.current is None
    assert guarded.follower.report().last_error == text
    file.unlink()
    guarded.restart()
    guarded.witness.wait(lambda seen: bool(seen.swaps))
    assert guarded.label() == 2 - cut


def test_a_follower_that_runs_goes_on_when_its_log_is_cut(guarded: Guarded) -> None:
    for winner in (0, 1):
        guarded.serve(winner)
    guarded.memory.delete(guarded.path(2))
    guarded.registry.promote("digits", guarded.publish(2))  # generation 2 again
    generation = guarded.registry.promote("digits", 1).generation
    guarded.witness.wait(lambda seen: any(f"generation {generation} of" in text for text in seen.failures))
    assert "does not follow" in guarded.witness.failures[0]
    assert guarded.label() == 1


class Clockwatcher(Witness):
    def __init__(self) -> None:
        super().__init__()
        self.polls = 0
        self.ends: list[datetime] = []

    def expired(self, fresh_until: datetime) -> None:
        self._note(lambda: self.ends.append(fresh_until))

    def polled(self) -> None:
        self._note(lambda: setattr(self, "polls", self.polls + 1))


def test_a_channel_that_nobody_vouches_for_is_warned_of_once_and_served(tmp_path: Path) -> None:
    guarded = Guarded(tmp_path)
    clockwatcher = Clockwatcher()
    guarded.follower.observe(clockwatcher)
    guarded.follower.start()
    guarded.fresh_for = timedelta(hours=1)
    guarded.use(guarded.key)
    guarded.serve(0)
    assert guarded.follower.report().fresh_until == guarded.now + timedelta(hours=1)
    assert not guarded.follower.expired
    # the promoter's clock is set back a day: its entry is over before it is written
    guarded.now -= DAY
    guarded.serve(1)
    polls = clockwatcher.polls
    clockwatcher.wait(lambda _seen: clockwatcher.polls > polls + 5)
    assert clockwatcher.ends == [guarded.now + timedelta(hours=1)]
    assert guarded.label() == 1
    assert guarded.follower.expired
    report = guarded.follower.report()
    assert "nobody vouched for the channel's freshness since" in str(report.last_error)
    assert report.fresh_until == guarded.now + timedelta(hours=1)
    # any entry renews it
    guarded.now = datetime.now(UTC)
    held = guarded.registry.hold("digits").generation
    guarded.witness.wait(lambda seen: seen.swaps[-1][0] == held)
    assert guarded.follower.report().last_error is None
    assert not guarded.follower.expired
    guarded.follower.stop()


def test_without_keys_nothing_is_remembered(tmp_path: Path) -> None:
    setting = Setting(tmp_path)
    setting.follower.start()
    setting.serve(0)
    setting.follower.stop()
    assert not (tmp_path / "state").exists()
    assert setting.follower.report().fresh_until is None
