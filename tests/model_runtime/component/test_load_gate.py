"""The whole gate with real children: hostile models, fuzzed ones, and files of the cache."""

from __future__ import annotations

import gc
import os
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnx import numpy_helper

from ferryline.model_runtime.cache import BlobCache
from ferryline.model_runtime.facts import read_facts
from ferryline.model_runtime.gate import Gate, GateKeeper, GateLimits
from ferryline.model_runtime.gate.limits import STANDARD_DOMAINS
from ferryline.registry import Registry
from ferryline.registry.documents import GoldenRows, Manifest, TrainingRecord
from ferryline.registry.errors import RefusedError, UsageError
from ferryline.registry.stores.memory import MemoryStore
from tests import hostile_models as hostile
from tests.grpc_server import model_files
from tests.hostile_models import HOSTILE, SERVED
from tests.model_fuzz import MUTATIONS
from tests.onnx_models import golden_rows, linear_classifier
from tests.support.sizes import sized
from tests.support.waiting import DEADLINE

LIMITS = GateLimits(wall_seconds=DEADLINE, cpu_seconds=20.0)
FLAT = 16 * 2**20
FUZZED = sized(25, 60)


@pytest.fixture
def gate(keeper: GateKeeper) -> Gate:
    return Gate(LIMITS, keeper=keeper)


def outcome(gate: Gate, data: bytes, golden: GoldenRows | None = None) -> str:
    try:
        gate.admit(data, golden)
    except RefusedError as error:
        refusal = error
    else:
        return SERVED
    assert refusal.reason.isprintable()
    assert refusal.remedy
    return refusal.gate


def resident_bytes(pid: int | str = "self") -> int:
    return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGESIZE")


def open_files(pid: int | str = "self") -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_model_meets_its_gate(keeper: GateKeeper, name: str) -> None:
    row = HOSTILE[name]
    data = row.make()
    gc.collect()
    pid, before = keeper.pid, resident_bytes()
    met = outcome(Gate(row.limits, keeper=keeper), data)
    assert met in row.gates
    assert resident_bytes() - before < FLAT
    assert pid in {None, keeper.pid}, "the keeper itself died"


def test_after_all_that_good_models_pass_and_nothing_is_left(keeper: GateKeeper) -> None:
    harm = ["constant of 6 GB, big tensors allowed", "function chain, everything allowed", "grows when run"]
    gate = Gate(LIMITS, keeper=keeper)
    gate.admit(linear_classifier())
    assert keeper.pid is not None
    files, keeper_files, resident = open_files(), open_files(keeper.pid), resident_bytes(keeper.pid)
    for name in harm * sized(2, 5):
        outcome(Gate(HOSTILE[name].limits, keeper=keeper), HOSTILE[name].make())
    gate.admit(linear_classifier(64, 10), golden_rows(64, 10))
    assert (open_files(), open_files(keeper.pid), children(keeper.pid)) == (files, keeper_files, [])
    assert resident_bytes(keeper.pid) - resident < FLAT


SEEDS = {
    "linear": lambda: linear_classifier(8, 3),
    "tree": lambda: hostile.tree(1, 2),
    "two outputs": model_files.sum_and_difference,
    "branches": lambda: hostile.branches(2),
    "functions": lambda: hostile.function_chain(3),
    "doubling": lambda: hostile.doubling(4),
    "loop": lambda: hostile.loop(3),
    "sparse": lambda: hostile.sparse_initializer(8),
    "shape": lambda: hostile.constant_of_shape(8),
    "digits": model_files.digits_classifier,
}
PERMISSIVE = replace(
    LIMITS,
    cpu_seconds=5.0,
    allow_control_flow=True,
    allow_functions=True,
    allow_sparse=True,
    domains=(*STANDARD_DOMAINS, "chain"),
)


@pytest.mark.parametrize("name", SEEDS)
def test_fuzzed_models_harm_nobody(keeper: GateKeeper, name: str) -> None:
    """Each is refused by a gate, or served as what it became, also where everything is allowed."""
    data, chance = SEEDS[name](), random.Random(name)  # noqa: S311 - the same every time
    gates = [Gate(LIMITS, keeper=keeper), Gate(PERMISSIVE, keeper=keeper)]
    before, pid = resident_bytes(), keeper.pid
    outcomes = {outcome(chance.choice(gates), chance.choice(MUTATIONS)(data, chance)) for _ in range(FUZZED)}
    assert len(outcomes) >= 3
    assert resident_bytes() - before < FLAT
    assert pid in {None, keeper.pid}
    assert children(keeper.pid or 0) == []


# --- what is good passes --------------------------------------------------------------------------


def test_what_the_gate_tells_is_what_the_file_holds(gate: Gate) -> None:
    for data in (
        linear_classifier(),
        model_files.digits_classifier(),
        model_files.identity("string", ["n", 2]),
    ):
        assert gate.admit(data) == read_facts(data)


def test_a_forest_passes(gate: Gate) -> None:
    from skl2onnx import to_onnx
    from sklearn.ensemble import RandomForestClassifier

    rows = np.random.default_rng(0).normal(size=(300, 4)).astype(np.float32)
    forest = RandomForestClassifier(30, random_state=0).fit(rows, rows[:, 0] > 0)
    data = to_onnx(forest, rows[:1], options={"zipmap": False}, target_opset=17).SerializeToString()
    assert outcome(gate, data) == SERVED


def test_a_big_model_passes_with_the_memory_for_its_size(keeper: GateKeeper) -> None:
    weights = numpy_helper.from_array(np.ones((4096, 4096), np.float32), "w")
    made = hostile.model(
        [hostile.node("MatMul", ["x", "w"], ["y"])],
        [weights],
        inputs=[hostile.value("x", [None, 4096])],
        outputs=[hostile.value("y", [None, 4096])],
    )
    data = made.SerializeToString()
    del made, weights
    before = resident_bytes()
    assert outcome(Gate(LIMITS, keeper=keeper), data) == SERVED
    assert resident_bytes() - before < FLAT
    starved = GateLimits(base_memory_bytes=64 * 2**20, memory_per_byte=1.0)
    assert outcome(Gate(starved, keeper=keeper), data) == "memory"


def test_a_second_time_costs_nothing(gate: Gate, keeper: GateKeeper, monkeypatch: pytest.MonkeyPatch) -> None:
    data = linear_classifier(64, 10, bias=0.25)
    facts = gate.admit(data)
    monkeypatch.setattr(keeper, "judge", lambda *_: pytest.fail("it was judged again"))
    assert gate.admit(data) == facts


@pytest.mark.parametrize(
    ("golden", "text"),
    [
        (golden_rows(winner=1), "differs"),
        (golden_rows(bias=0.5), "off by"),
        (GoldenRows(inputs={"nonsense": [[1.0]]}, outputs={}), "nonsense"),
        (GoldenRows(inputs={"input": [["a"]]}, outputs={"label": [0]}), "no float32"),
        (GoldenRows(inputs={"input": [[1.0]]}, outputs={"label": [0]}), "could not be run"),
        (GoldenRows(inputs={}, outputs={"label": [0]}), "could not be run"),
    ],
)
def test_golden_rows_must_come_out(gate: Gate, golden: GoldenRows, text: str) -> None:
    with pytest.raises(RefusedError, match=text) as caught:
        gate.admit(linear_classifier(), golden)
    assert caught.value.gate == "golden-rows"


# --- files of the cache ---------------------------------------------------------------------------


@pytest.fixture
def published(tmp_path: Path) -> tuple[Path, Manifest]:
    data = linear_classifier()
    registry = Registry(MemoryStore(), actor="tester")
    manifest = registry.publish("m", data, read_facts(data), TrainingRecord(golden=golden_rows()))
    return BlobCache(tmp_path / "cache").keep(manifest.blob.digest, data), manifest


def test_a_restart_does_not_pay_again(
    keeper: GateKeeper, published: tuple[Path, Manifest], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, manifest = published
    facts = Gate(LIMITS, keeper=keeper).admit_file(path, manifest)
    unused = GateKeeper()
    assert Gate(LIMITS, keeper=unused).admit_file(path, manifest) == facts
    assert unused.pid is None
    monkeypatch.setattr("ferryline.model_runtime.gate.verdicts._version_of", lambda _: "of tomorrow")
    assert Gate(LIMITS, keeper=unused).admit_file(path, manifest) == facts
    assert unused.pid is not None
    unused.stop()


def test_a_refusal_is_not_remembered(keeper: GateKeeper, published: tuple[Path, Manifest]) -> None:
    path, manifest = published
    wrong = manifest.model_copy(update={"golden": golden_rows(winner=2)})
    for _ in range(2):
        with pytest.raises(RefusedError, match="golden-rows"):
            Gate(LIMITS, keeper=keeper).admit_file(path, wrong)
    assert not list(path.parent.glob("*.passed"))


def test_the_bytes_that_are_judged_must_have_the_digest(
    keeper: GateKeeper, published: tuple[Path, Manifest]
) -> None:
    path, manifest = published
    path.write_bytes(linear_classifier(winner=1))
    with pytest.raises(RefusedError) as caught:
        Gate(LIMITS, keeper=keeper).admit_file(path, manifest)
    assert caught.value.gate == "digest"
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(RefusedError) as caught:
        Gate(LIMITS, keeper=keeper).admit_file(path, manifest)
    assert caught.value.gate == "size"


def test_a_file_that_vanished_is_no_fault_of_the_model(
    keeper: GateKeeper, published: tuple[Path, Manifest]
) -> None:
    path, manifest = published
    path.unlink()
    with pytest.raises(UsageError, match="vanished"):
        Gate(LIMITS, keeper=keeper).admit_file(path, manifest)
