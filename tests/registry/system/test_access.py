"""Three real MinIO users, each with the policy of its role: what must work does, what must not is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import orjson
import pytest

from ferryline.deploy.access.granting import grant
from ferryline.deploy.access.location import Location
from ferryline.deploy.access.policies import Policy, Service, render
from ferryline.deploy.stack.addresses import Addresses, Credentials
from ferryline.model_runtime.follower import Follower, FollowerSettings
from ferryline.model_runtime.heartbeat import HeartbeatReporter
from ferryline.registry import collection, keys
from ferryline.registry.catalogue import Registry
from ferryline.registry.collection import Retention
from ferryline.registry.collector import Collector
from ferryline.registry.doctor.examination import examine
from ferryline.registry.doctor.findings import Outcome
from ferryline.registry.doctor.rights import look_at_rights
from ferryline.registry.doctor.trust import Trust, require_trustworthy
from ferryline.registry.documents import Manifest
from ferryline.registry.errors import BrokenChainError, MissingRightError, StoreDeniedError
from ferryline.registry.refusals import Refusals
from ferryline.registry.roles import Role
from ferryline.registry.stores import Store, open_store
from tests.onnx_models import inspect_model, linear_classifier
from tests.registry.ferry import Ferry, Result
from tests.support.waiting import DEADLINE, wait_for

CONSUMER = "grpc-1"


@dataclass(frozen=True)
class Users:
    """Who may do what in one registry."""

    store_url: str
    location: Location
    admin: Credentials
    tag: str

    def add(self, name: str, policy: Policy) -> Credentials:
        return grant(self.location, self.admin, f"{name}-{self.tag}", policy).credentials

    def of(self, role: Role) -> Credentials:
        consumer = CONSUMER if role is Role.CONSUMER else None
        return self.add(role, render(role, self.location, consumer=consumer))


@pytest.fixture
def store_url(minio_store_url: str) -> str:
    return minio_store_url


@pytest.fixture
def users(minio: Addresses, minio_store_url: str) -> Users:
    return Users(
        minio_store_url,
        Location.of(minio_store_url),
        Credentials(minio.access_key, minio.secret_key),
        tag=f"{abs(hash(minio_store_url)) % 10**8:08d}",
    )


@contextmanager
def signed_in(credentials: Credentials) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", credentials.access_key)
        patch.setenv("AWS_SECRET_ACCESS_KEY", credentials.secret_key)
        yield


def store_of(users: Users, credentials: Credentials) -> Store:
    with signed_in(credentials):
        return open_store(users.store_url)


def registry_of(users: Users, credentials: Credentials) -> Registry:
    return Registry(store_of(users, credentials), actor=credentials.access_key)


FerryOf = Callable[..., Result]


@pytest.fixture
def ferry_of(ferry: Ferry) -> FerryOf:
    """Runs `ferry` with someone's credentials."""

    def run(credentials: Credentials, *words: str) -> Result:
        return ferry(
            *words, AWS_ACCESS_KEY_ID=credentials.access_key, AWS_SECRET_ACCESS_KEY=credentials.secret_key
        )

    return run


def publish(registry: Registry, winner: int = 0) -> Manifest:
    data = linear_classifier(winner=winner)
    return registry.publish("digits", data, inspect_model(data))


# --- what must work ---------------------------------------------------------------------------------


def test_trainer_consumer_and_operator_do_their_work_together(
    users: Users, ferry_of: FerryOf, tmp_path: Path
) -> None:
    trainer, operator = users.of(Role.TRAINER), users.of(Role.OPERATOR)
    model = tmp_path / "model.onnx"
    model.write_bytes(linear_classifier())
    promoted = ferry_of(trainer, "publish", "digits", str(model), "--promote")
    assert promoted.code == 0, promoted.err

    consumer = registry_of(users, users.of(Role.CONSUMER))
    follower = Follower(
        consumer, "digits", cache=tmp_path / "cache", settings=FollowerSettings(poll_interval=0.05)
    )
    reporter = HeartbeatReporter(consumer, consumer=CONSUMER, role="grpc", followers=[follower], interval=0.5)
    follower.start()
    reporter.start()
    try:
        served = follower.wait_until_serving(DEADLINE)
        assert served is not None, follower.report()
        assert served.version == 1
        publish(registry_of(users, trainer), winner=1)
        assert ferry_of(trainer, "promote", "digits@2").code == 0
        wait_for(lambda: follower.current is not None and follower.current.version == 2, "the second version")

        # what `--wait` waits for is the heartbeat, written with the consumer's own credentials
        back = ferry_of(operator, "rollback", "digits", "--wait", str(DEADLINE), "-m", "test")
        assert back.code == 0, back.err
        status = ferry_of(operator, "status", "-o", "json")
        assert '"grpc-1"' in status.out
    finally:
        follower.stop()
        reporter.stop()
    assert list(store_of(users, operator).list("consumers/")) == []  # the consumer took its heartbeat away


def test_an_operator_does_everything_the_command_line_does(
    users: Users, ferry_of: FerryOf, tmp_path: Path
) -> None:
    operator = users.of(Role.OPERATOR)
    model = tmp_path / "model.onnx"
    model.write_bytes(linear_classifier())
    for words in (
        ("publish", "digits", str(model), "--promote"),
        ("list",),
        ("show", "digits"),
        ("hold", "digits"),
        ("release", "digits"),
        ("history", "digits"),
        ("status",),
        ("doctor", "--as", "operator"),
    ):
        done = ferry_of(operator, *words)
        assert done.code == 0, (words, done.err)


def test_an_operator_collects_garbage_and_nobody_else_does(
    users: Users, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collection, "SHORTEST_GRACE", timedelta(0))  # what is marked goes in the next run
    retention = Retention(keep_versions=1, rollback_depth=0, grace=timedelta(0))
    operator = registry_of(users, users.of(Role.OPERATOR))
    kept = [publish(operator, winner) for winner in range(3)][-1]
    operator.promote("digits", kept.version)
    for role in (Role.TRAINER, Role.CONSUMER):
        with pytest.raises(MissingRightError):
            Collector(registry_of(users, users.of(role)), retention).run()
    assert len(Collector(operator, retention).run().marked) == 2
    assert len(Collector(operator, retention).run().collected) == 2
    assert [listed.key for listed in operator.store.list("blobs/")] == [keys.blob(kept.blob.digest)]


def test_a_trainer_brings_a_file_back_that_was_to_be_collected(
    users: Users, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collection, "SHORTEST_GRACE", timedelta(0))
    retention = Retention(keep_versions=1, rollback_depth=0, grace=timedelta(0))
    operator = registry_of(users, users.of(Role.OPERATOR))
    for winner in range(2):
        publish(operator, winner)
    assert len(Collector(operator, retention).run().marked) == 1
    trainer = registry_of(users, users.of(Role.TRAINER))
    trainer.promote("digits", 1)  # takes the mark away, which is a delete
    Collector(operator, retention).run()
    assert len(list(operator.store.list("blobs/"))) == 2


# --- what must not ----------------------------------------------------------------------------------

FORBIDDEN_TO_A_CONSUMER: dict[str, tuple[Callable[[Store], object], str]] = {
    "publish a file": (lambda s: s.put_if_absent(f"blobs/sha256/{'0' * 64}", b"x"), "PutObject"),
    "add a version": (
        lambda s: s.put_if_absent("models/digits/versions/0000000002.json", b"x"),
        "PutObject",
    ),
    "promote": (
        lambda s: s.put_if_absent("models/digits/channels/production/0000000002.json", b"x"),
        "PutObject",
    ),
    "overwrite an entry": (
        lambda s: s.put("models/digits/channels/production/0000000001.json", b"x"),
        "PutObject",
    ),
    "write the ledger": (lambda s: s.put_if_absent("models/digits/refusals/x.json", b"x"), "PutObject"),
    "rewrite the hint": (lambda s: s.put("hint.json", b"x"), "PutObject"),
    "probe": (lambda s: s.put("doctor/x/y", b"x"), "PutObject"),
    "spare a file": (lambda s: s.delete(f"garbage/sha256/{'0' * 64}.json"), "DeleteObject"),
    "delete an entry": (
        lambda s: s.delete("models/digits/channels/production/0000000001.json"),
        "DeleteObject",
    ),
    "delete a file": (lambda s: s.delete(f"blobs/sha256/{'0' * 64}"), "DeleteObject"),
    "write another's heartbeat": (lambda s: s.put("consumers/grpc-2.json", b"x"), "PutObject"),
    "write a heartbeat named alike": (lambda s: s.put("consumers/grpc-1.json.json", b"x"), "PutObject"),
    "take another's heartbeat away": (lambda s: s.delete("consumers/grpc-2.json"), "DeleteObject"),
    "list the others": (lambda s: list(s.list("consumers/")), "ListBucket"),
    "list everything": (lambda s: list(s.list("")), "ListBucket"),
    "read another's heartbeat": (lambda s: s.get("consumers/grpc-2.json"), "GetObject"),
}

FORBIDDEN_TO_A_TRAINER: dict[str, tuple[Callable[[Store], object], str]] = {
    "delete a file": (lambda s: s.delete(f"blobs/sha256/{'0' * 64}"), "DeleteObject"),
    "delete an entry": (
        lambda s: s.delete("models/digits/channels/production/0000000001.json"),
        "DeleteObject",
    ),
    "delete a version": (lambda s: s.delete("models/digits/versions/0000000001.json"), "DeleteObject"),
    "delete a refusal": (lambda s: s.delete("models/digits/refusals/x.json"), "DeleteObject"),
    "delete the hint": (lambda s: s.delete("hint.json"), "DeleteObject"),
    "mark garbage": (lambda s: s.put(f"garbage/sha256/{'0' * 64}.json", b"x"), "PutObject"),
    "write a heartbeat": (lambda s: s.put("consumers/grpc-1.json", b"x"), "PutObject"),
    "write elsewhere": (lambda s: s.put("models/digits/other.json", b"x"), "PutObject"),
    "list the consumers": (lambda s: list(s.list("consumers/")), "ListBucket"),
    "list everything": (lambda s: list(s.list("")), "ListBucket"),
}


@pytest.mark.parametrize(
    ("role", "forbidden"),
    [(Role.CONSUMER, FORBIDDEN_TO_A_CONSUMER), (Role.TRAINER, FORBIDDEN_TO_A_TRAINER)],
    ids=["consumer", "trainer"],
)
def test_what_a_role_must_not_do_is_refused_and_changes_nothing(
    users: Users,
    minio_store: Store,
    role: Role,
    forbidden: dict[str, tuple[Callable[[Store], object], str]],
) -> None:
    root = Registry(minio_store)
    publish(root)
    root.promote("digits", 1)
    minio_store.put("consumers/grpc-2.json", b"{}")
    before = {listed.key: minio_store.get(listed.key).data for listed in minio_store.list("")}
    store = store_of(users, users.of(role))
    for what, (act, action) in forbidden.items():
        with pytest.raises(MissingRightError) as caught:
            act(store)
        assert caught.value.right.startswith(f"s3:{action} on {users.location.bucket}/"), what
    assert {listed.key: minio_store.get(listed.key).data for listed in minio_store.list("")} == before


@pytest.mark.parametrize(
    "words",
    [("promote", "digits@1"), ("rollback", "digits", "--to", "1"), ("hold", "digits")],
    ids=lambda w: w[0],
)
def test_a_consumer_at_the_command_line_is_told_which_right_is_missing(
    users: Users, ferry_of: FerryOf, minio_store: Store, words: tuple[str, ...]
) -> None:
    root = Registry(minio_store)
    publish(root)
    root.promote("digits", 1)
    done = ferry_of(users.of(Role.CONSUMER), *words)
    assert done.code == 6
    assert "s3:PutObject on models/" in done.err
    assert done.err.count("\n") == 1
    head = root.channel("digits").head()
    assert head is not None
    assert head.generation == 1


def test_no_role_sees_or_touches_another_registry_in_the_bucket(users: Users, minio: Addresses) -> None:
    bucket, _, query = users.store_url.partition("?")
    for role in Role:
        with signed_in(users.of(role)):
            other = open_store(f"{bucket}-other?{query}")
        for act in (
            lambda: list(other.list("models/")),  # noqa: B023 - called in this turn of the loop
            lambda: other.get("hint.json"),  # noqa: B023 - likewise
            lambda: other.put("hint.json", b"{}"),  # noqa: B023 - likewise
            lambda: other.delete("hint.json"),  # noqa: B023 - likewise
        ):
            with pytest.raises(MissingRightError):
                act()


# --- variants ---------------------------------------------------------------------------------------


def test_a_consumer_that_may_write_the_ledger_writes_nothing_else(users: Users) -> None:
    policy = render(Role.CONSUMER, users.location, consumer="grpc-*", record_refusals=True)
    store = store_of(users, users.add("ledger", policy))
    ledger = Refusals(store, "digits")
    assert ledger.record(gate="test", reason="r", remedy="m", consumer="grpc-7") is not None
    assert [record.consumer for record in ledger.newest()] == ["grpc-7"]
    store.put("consumers/grpc-7.json", b"{}")
    with pytest.raises(MissingRightError):
        store.put_if_absent("models/digits/versions/0000000001.json", b"x")


def test_a_refusal_that_cannot_be_recorded_costs_nothing(users: Users) -> None:
    ledger = Refusals(store_of(users, users.of(Role.CONSUMER)), "digits")
    assert ledger.record(gate="test", reason="r", remedy="m", consumer=CONSUMER) is None


def test_a_trainer_of_one_model_adds_to_no_other(users: Users) -> None:
    registry = registry_of(users, users.add("one", render(Role.TRAINER, users.location, model="digits")))
    assert publish(registry).version == 1
    with pytest.raises(MissingRightError, match="models/other/versions"):
        registry.publish("other", linear_classifier(), inspect_model(linear_classifier()))


# --- what is not enforced, and what notices it ------------------------------------------------------


def test_minio_knows_no_policy_against_overwriting(users: Users) -> None:
    policy = render(Role.TRAINER, users.location, service=Service.AWS)
    adding = [statement for statement in policy["Statement"] if statement["Sid"] == "AddToTheLogs"]
    with pytest.raises(StoreDeniedError, match="invalid condition key 's3:if-none-match'"):
        users.add("strict", {**policy, "Statement": adding})


def test_a_trainer_that_overwrites_an_entry_on_minio_is_noticed_by_every_reader(users: Users) -> None:
    registry = registry_of(users, users.of(Role.TRAINER))
    for winner in range(2):
        registry.promote("digits", publish(registry, winner).version)
    first = "models/digits/channels/production/0000000001.json"
    entry = orjson.loads(registry.store.get(first).data)
    registry.store.put(first, orjson.dumps({**entry, "actor": "someone else"}))
    with pytest.raises(BrokenChainError, match="does not follow"):
        list(registry.channel("digits").history())


# --- doctor -----------------------------------------------------------------------------------------


def test_doctor_finds_each_role_to_have_what_it_needs(users: Users, minio_store: Store) -> None:
    root = Registry(minio_store)
    publish(root)
    root.promote("digits", 1)
    assert Refusals(minio_store, "digits").record(gate="g", reason="r", remedy="m", consumer="c") is not None
    for role in Role:
        store = store_of(users, users.of(role))
        rights = look_at_rights(store, role=role, consumer=CONSUMER)
        assert [found.right for found in rights if found.missing] == [], role
        assert [found.right for found in rights if found.held is None] == [], role
        excess = [found.right for found in rights if found.excess]
        # MinIO cannot keep a trainer from overwriting; an operator may write what it may also delete
        expected = {Role.TRAINER: ["overwrite what was written"], Role.OPERATOR: ["write the heartbeat"]}
        assert excess == expected.get(role, []), role
    assert [entry.generation for entry in root.channel("digits").history()] == [1]


def test_doctor_by_a_consumer_tells_what_it_could_not_probe(users: Users) -> None:
    findings = examine(store_of(users, users.of(Role.CONSUMER)))
    assert [finding for finding in findings if finding.outcome is Outcome.FAILED] == []
    assert {finding.outcome for finding in findings} == {Outcome.PASSED, Outcome.NOT_PROBED}


def test_doctor_by_a_trainer_leaves_nothing_behind(users: Users, minio_store: Store) -> None:
    findings = examine(store_of(users, users.of(Role.TRAINER)))
    assert {finding.outcome for finding in findings} == {Outcome.PASSED}
    assert list(minio_store.list("doctor/")) == []


def test_doctor_exits_6_where_credentials_are_not_enough(users: Users, ferry_of: FerryOf) -> None:
    done = ferry_of(users.of(Role.CONSUMER), "doctor", "--as", "trainer")
    assert done.code == 6
    assert "not enough for a trainer" in done.err
    enough = ferry_of(users.of(Role.CONSUMER), "doctor", "--as", "consumer", "--consumer", CONSUMER)
    assert enough.code == 0


def test_only_credentials_without_doctor_rights_write_unprobed(users: Users, tmp_path: Path) -> None:
    trusts = {role: require_trustworthy(store_of(users, users.of(role)), tmp_path / role) for role in Role}
    assert trusts == {
        Role.TRAINER: Trust.PROVED,
        Role.OPERATOR: Trust.PROVED,
        Role.CONSUMER: Trust.NOT_PROBED,
    }
