"""Histories that failed once: `kept.json` has their scripts, which no change of a profile alters.

Add one with `python -m tests.simulation SEED --only INVARIANT --keep NAME`.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.simulation.invariants import Invariant
from tests.simulation.script import Act, Script, Step
from tests.simulation.store import Fault, Place, Trouble

FILE = Path(__file__).with_name("kept.json")


@dataclass(frozen=True, slots=True)
class Kept:
    """A history that failed: what was at fault, the seed that found it, and the invariant it broke."""

    fault: str
    seed: int
    invariant: Invariant
    script: Script


def kept() -> list[Kept]:
    """All of them."""
    return [_decode(raw) for raw in json.loads(FILE.read_text())] if FILE.exists() else []


def keep(one: Kept) -> None:
    """Keep one more, in place of what was kept for the same fault and invariant."""
    others = [each for each in kept() if (each.fault, each.invariant) != (one.fault, one.invariant)]
    ordered = sorted([*others, one], key=lambda each: (each.fault, each.invariant.name))
    FILE.write_text(json.dumps([_encode(each) for each in ordered], indent=1) + "\n")


def _encode(one: Kept) -> dict[str, Any]:
    steps = [_given(step) for step in one.script.steps]
    script = _given(one.script) | {"steps": steps}
    return {"fault": one.fault, "seed": one.seed, "invariant": one.invariant.name, "script": script}


def _given(record: Script | Step | Trouble) -> dict[str, Any]:
    """The fields of a record that say something."""
    given: dict[str, Any] = {}
    for item in dataclasses.fields(record):
        value = getattr(record, item.name)
        if isinstance(value, Act | Fault | Place):
            given[item.name] = value.name
        elif item.name == "troubles" and value:
            given[item.name] = [_given(trouble) for trouble in value]
        elif value != item.default:
            given[item.name] = value
    return given


def _decode(raw: Mapping[str, Any]) -> Kept:
    fields = raw["script"]
    steps = tuple(_step(step) for step in fields["steps"])
    hosts = {"hosts": tuple(fields["hosts"])} if "hosts" in fields else {}
    script = Script(**{**fields, **hosts, "steps": steps})
    return Kept(raw["fault"], raw["seed"], Invariant[raw["invariant"]], script)


def _step(raw: Mapping[str, Any]) -> Step:
    troubles = tuple(
        Trouble(
            Fault[each["fault"]], Place[each["place"]], each.get("skip", 0), float(each.get("seconds", 0.0))
        )
        for each in raw.get("troubles", ())
    )
    return Step(**{**raw, "act": Act[raw["act"]], "troubles": troubles})
