from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import orjson
import pytest

from ferryline.registry import Registry
from ferryline.registry.documents import Evaluation, ModelFacts, Operation, TensorSpec, TrainingRecord
from ferryline.registry.errors import (
    BrokenChainError,
    ChannelHeldError,
    ConflictError,
    DigestMismatchError,
    NotFoundError,
    RefusedError,
    UsageError,
)
from ferryline.registry.names import ModelReference
from ferryline.registry.stores.folder import FolderStore
from ferryline.registry.stores.memory import MemoryStore


def facts(features: int = 4) -> ModelFacts:
    return ModelFacts(
        opset=17,
        ir_version=8,
        inputs=(TensorSpec(name="input", dtype="float32", shape=(-1, features)),),
        outputs=(TensorSpec(name="label", dtype="int64", shape=(-1,)),),
    )


@pytest.fixture
def registry() -> Registry:
    return Registry(MemoryStore(), actor="tester")


def publish(registry: Registry, count: int = 1) -> None:
    for number in range(count):
        registry.publish("digits", b"model %d" % number, facts())


def test_versions_count_up_and_lie_where_the_design_says(registry: Registry) -> None:
    publish(registry, 2)
    registry.promote("digits", 2)
    manifest = registry.versions("digits").get(2)
    assert [item.key for item in registry.store.list("")] == sorted(
        [
            "blobs/sha256/" + manifest.blob.digest.removeprefix("sha256:"),
            "blobs/sha256/" + registry.versions("digits").get(1).blob.digest.removeprefix("sha256:"),
            "hint.json",
            "models/digits/channels/production/0000000001.json",
            "models/digits/versions/0000000001.json",
            "models/digits/versions/0000000002.json",
        ]
    )
    assert registry.models() == ["digits"]
    assert registry.channels("digits") == ["production"]
    assert registry.versions("digits").load(manifest) == b"model 1"


def test_the_same_file_twice_is_two_versions_of_one_blob(registry: Registry) -> None:
    first = registry.publish("digits", b"same", facts())
    second = registry.publish("digits", b"same", facts())
    assert (first.version, second.version) == (1, 2)
    assert first.blob == second.blob


def test_many_models_are_listed_by_name(registry: Registry) -> None:
    for name in ("zebra", "a", "a-b", "a.b", "digits"):
        registry.publish(name, b"x", facts())
    registry.store.put("models/only-a-channel/channels/production/0000000001.json", b"")
    assert sorted(registry.models()) == ["a", "a-b", "a.b", "digits", "zebra"]


def test_a_chain_of_entries_says_what_happened(registry: Registry) -> None:
    publish(registry, 3)
    for version in (1, 2, 3):
        registry.promote("digits", version, reason=f"try {version}")
    rolled_back = registry.rollback("digits", reason="bad")
    assert (rolled_back.generation, rolled_back.version, rolled_back.held) == (4, 2, True)
    with pytest.raises(ChannelHeldError):
        registry.promote("digits", 3, automatic=True)
    registry.release("digits")
    registry.promote("digits", 3, automatic=True)
    entries = list(registry.channel("digits").history())
    assert [entry.operation for entry in entries] == [
        *[Operation.PROMOTE] * 3,
        Operation.ROLLBACK,
        Operation.RELEASE,
        Operation.PROMOTE,
    ]
    assert [entry.previous for entry in entries][1:] == [entry.digest for entry in entries][:-1]
    assert entries[0].previous is None


def test_what_was_taken_back_is_no_step_of_the_way_back(registry: Registry) -> None:
    publish(registry, 3)
    registry.promote("digits", 1)
    registry.promote("digits", 2, reason="bad")
    gone_to = registry.rollback("digits", to=3, reason="2 is bad, and 3 was good elsewhere")
    assert [entry.version for entry in registry.channel("digits").undo_chain(gone_to)] == [1]
    assert registry.rollback("digits").version == 1


def test_a_rollback_to_what_never_served_here_asks_for_the_contract(registry: Registry) -> None:
    publish(registry, 2)
    other = registry.publish("digits", b"another model", facts(5)).version
    registry.promote("digits", 1)
    registry.promote("digits", 2)
    with pytest.raises(RefusedError, match="cannot take the place of 2 on digits:production") as refused:
        registry.rollback("digits", to=other)
    assert refused.value.gate == "contract"
    assert registry.channel("digits").require_head().version == 2
    assert registry.rollback("digits", to=1).contract_change is False


def test_a_rollback_to_what_served_here_passes_whatever_its_contract(registry: Registry) -> None:
    publish(registry)
    other = registry.publish("digits", b"another model", facts(5)).version
    for version in (other, 1, other, 1):
        registry.promote("digits", version, allow_contract_change=True)
    assert registry.rollback("digits", to=other).contract_change is True
    registry.rollback("digits", to=1)  # off the way back by now: the last entry that named it was taken back
    assert registry.channel("digits").require_head().version == 1


def test_a_channel_whose_version_has_another_manifest_than_it_names_is_not_taken(
    registry: Registry,
) -> None:
    publish(registry, 2)
    registry.promote("digits", 1)
    for trusted in (True, False):
        assert registry.resolve(ModelReference.parse("digits"), trusted=trusted).version == 1
    key = "models/digits/versions/0000000001.json"
    other = registry.versions("digits").get(2).model_copy(update={"version": 1})
    registry.store.put(key, other.encode())
    with pytest.raises(DigestMismatchError, match="generation 1 of digits:production names"):
        registry.resolve(ModelReference.parse("digits:production"), trusted=True)
    assert registry.resolve(ModelReference.parse("digits:production")).blob == other.blob  # to look at it
    assert registry.resolve(ModelReference.parse("digits@1")).blob == other.blob


def test_rollback_to_a_version_and_its_limits(registry: Registry) -> None:
    publish(registry, 3)
    with pytest.raises(NotFoundError):
        registry.rollback("digits")
    registry.promote("digits", 3)
    assert registry.rollback("digits", to=1).version == 1
    with pytest.raises(NotFoundError, match="no version 9"):
        registry.rollback("digits", to=9)
    with pytest.raises(ConflictError):
        registry.rollback("digits", expect=1)


def test_promotion_of_what_is_not_there(registry: Registry) -> None:
    with pytest.raises(NotFoundError, match="no model digits"):
        registry.promote("digits", 1)
    publish(registry)
    with pytest.raises(NotFoundError, match="the newest is 1"):
        registry.promote("digits", 2)
    with pytest.raises(UsageError, match="cannot name a channel"):
        registry.promote("digits", 1, "Production!")


def test_another_contract_needs_a_word(registry: Registry) -> None:
    publish(registry)
    registry.publish("digits", b"narrow", facts(63))
    registry.promote("digits", 1)
    with pytest.raises(RefusedError, match=r"input 'input' had shape \[-1, 64\]|had shape \[-1, 4\]"):
        registry.promote("digits", 2)
    entry = registry.promote("digits", 2, allow_contract_change=True)
    assert entry.contract_change
    assert registry.rollback("digits").version == 1


def test_references_resolve(registry: Registry) -> None:
    publish(registry, 2)
    registry.promote("digits", 1)
    registry.promote("digits", 2, "staging")
    versions = {
        text: registry.resolve(ModelReference.parse(text)).version
        for text in ("digits", "digits@2", "digits:staging")
    }
    assert versions == {"digits": 1, "digits@2": 2, "digits:staging": 2}
    with pytest.raises(NotFoundError, match="digits:shadow has no entry"):
        registry.resolve(ModelReference.parse("digits:shadow"))


def test_racing_promoters_have_one_winner_per_generation(registry: Registry) -> None:
    publish(registry)

    def promote(_: int) -> int | None:
        try:
            return registry.promote("digits", 1).generation
        except ConflictError:
            return None

    with ThreadPoolExecutor(16) as pool:
        won = [generation for generation in pool.map(promote, range(200)) if generation is not None]
    assert sorted(won) == list(range(1, len(won) + 1))
    assert len(list(registry.channel("digits").history())) == len(won)


def test_racing_publishers_all_get_a_version(registry: Registry) -> None:
    with ThreadPoolExecutor(16) as pool:
        manifests = list(pool.map(lambda n: registry.publish("digits", b"%d" % n, facts()), range(32)))
    assert sorted(manifest.version for manifest in manifests) == list(range(1, 33))


def test_an_altered_log_is_noticed(registry: Registry) -> None:
    publish(registry, 2)
    registry.promote("digits", 1)
    registry.promote("digits", 2)
    key = "models/digits/channels/production/0000000001.json"
    raw = orjson.loads(registry.store.get(key).data) | {"reason": "I was never here"}
    registry.store.put(key, orjson.dumps(raw))
    with pytest.raises(BrokenChainError, match="does not follow"):
        list(registry.channel("digits").history())
    registry.store.delete(key)
    with pytest.raises(BrokenChainError, match="is missing"):
        list(registry.channel("digits").history())


def test_an_entry_in_a_wrong_place_is_noticed(registry: Registry) -> None:
    publish(registry, 1)
    registry.promote("digits", 1)
    data = registry.store.get("models/digits/channels/production/0000000001.json").data
    registry.store.put("models/digits/channels/staging/0000000001.json", data)
    with pytest.raises(BrokenChainError, match="wrong place"):
        registry.channel("digits", "staging").head()


def test_a_corrupt_blob_is_not_handed_out(registry: Registry) -> None:
    publish(registry)
    manifest = registry.versions("digits").get(1)
    key = "blobs/sha256/" + manifest.blob.digest.removeprefix("sha256:")
    registry.store.put(key, b"model 1")
    with pytest.raises(DigestMismatchError, match="corrupt, truncated or was replaced"):
        registry.versions("digits").load(manifest)
    registry.store.delete(key)
    with pytest.raises(BrokenChainError, match="is missing"):
        registry.versions("digits").load(manifest)


@pytest.mark.parametrize("foreign", ["digits/\u00e4.txt", "digits/~", "README", "Weird Name/versions/x"])
def test_foreign_files_do_not_disturb_a_listing(tmp_path: Path, foreign: str) -> None:
    registry = Registry(FolderStore(tmp_path), actor="tester")
    publish(registry)
    registry.publish("phishing", b"x", facts())
    stray = tmp_path / "models" / foreign
    stray.parent.mkdir(parents=True, exist_ok=True)
    stray.write_text("")
    assert registry.models() == ["digits", "phishing"]


def test_publishing_again_repairs_a_damaged_file(registry: Registry) -> None:
    publish(registry)
    manifest = registry.versions("digits").get(1)
    key = "blobs/sha256/" + manifest.blob.digest.removeprefix("sha256:")
    registry.store.put(key, b"dam")
    assert registry.publish("digits", b"model 0", facts()).version == 2
    assert registry.versions("digits").load(manifest) == b"model 0"


def test_a_manifest_that_could_not_be_read_again_is_not_written(registry: Registry) -> None:
    record = TrainingRecord(evaluation=Evaluation(metrics={"loss": float("nan")}))
    with pytest.raises(UsageError, match=r"evaluation\.metrics\.loss"):
        registry.publish("digits", b"x", facts(), record)
    with pytest.raises(UsageError, match="UTF-8"):
        registry.publish("digits", b"x", facts(), TrainingRecord(framework="\udcff"))
    assert registry.models() == []


@pytest.mark.parametrize(
    "text",
    ["", "Digits", "a@b", "a@0", "a@-1", "a:", "a@1:b", "a b", "a/b", "..", "a@\u0661", "a@" + "9" * 5000],
)
def test_what_is_no_reference(text: str) -> None:
    with pytest.raises(UsageError):
        ModelReference.parse(text)
