"""What `-o json` prints is what docs/json-output.md says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from pydantic import TypeAdapter

from ferryline.registry import Registry
from ferryline.registry.cli.app import FerryGroup
from ferryline.registry.cli.schema import document
from ferryline.registry.cli.shapes import SHAPES
from ferryline.registry.documents import Heartbeat, ServedModelReport, utc_now
from tests.registry.ferry import Ferry
from tests.support.waiting import DEADLINE

DOCUMENT = Path(__file__).parents[3] / "docs" / "json-output.md"


def names() -> set[str]:
    return {
        info.name or info.callback.__name__
        for commands in FerryGroup.sections.values()
        for info in commands.registered_commands
        if info.callback is not None
    }


def require_shape(command: str, printed: Any) -> None:
    """Every field that is printed is one of the shape, and the other way round."""
    adapter = TypeAdapter(SHAPES[command])
    read = adapter.dump_python(adapter.validate_json(orjson.dumps(printed)), mode="json")
    assert fields(read) == fields(printed)
    assert not strangers(adapter.validate_json(orjson.dumps(printed)))


def fields(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: fields(inner) for name, inner in value.items()}
    return [fields(inner) for inner in value] if isinstance(value, list) else None


def strangers(value: Any) -> list[str]:
    """Fields that only a newer program would know: documents keep them, and these are none."""
    if isinstance(value, list):
        return [name for inner in value for name in strangers(inner)]
    return list(getattr(value, "model_extra", None) or {})


def test_every_command_has_a_shape() -> None:
    assert {command.partition(" ")[0] for command in SHAPES} == names()


def test_the_document_is_made_from_the_shapes() -> None:
    assert DOCUMENT.read_text() == document(), (
        "run: python -m ferryline.registry.cli.schema > docs/json-output.md"
    )


def test_a_stranger_is_noticed(ferry: Ferry, file: Callable[..., str]) -> None:
    printed = ferry("publish", "digits", file(), "--promote", "-o", "json").json
    require_shape("publish", printed)
    with pytest.raises(ValueError, match="more"):
        require_shape("publish", printed | {"more": 1})
    changed = ferry("hold", "digits", "-o", "json").json
    with pytest.raises(AssertionError):
        require_shape("hold", changed | {"more": 1})
    del changed["held"]
    with pytest.raises(AssertionError):
        require_shape("hold", changed)


@pytest.mark.usefixtures("published")
@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        ("promote", ["promote", "digits@1"]),
        ("promote", ["promote", "digits@1", "--canary", "5"]),
        ("promote", ["promote", "digits@1", "--dry-run"]),
        ("rollback", ["rollback", "digits"]),
        ("hold", ["hold", "digits"]),
        ("release", ["release", "digits"]),
        ("list", ["list"]),
        ("list MODEL", ["list", "digits"]),
        ("show", ["show", "digits"]),
        ("history", ["history", "digits"]),
        ("diff", ["diff", "digits@1", "3"]),
        ("diff", ["diff", "digits@1", "3", "--no-weights"]),
        ("status", ["status"]),
        ("pull", ["pull", "digits"]),
        ("doctor", ["doctor"]),
        ("keygen", ["keygen", "oncall", "--out", "keys"]),
        ("keys", ["keys"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_is_printed_has_its_shape(
    ferry: Ferry,
    store_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    arguments: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    report = ServedModelReport(model="digits", channel="production", phase="serving", generation=3)
    now = utc_now()
    Registry.open(store_url).consumers.beat(
        Heartbeat(
            consumer="c", role="grpc", host="h", pid=1, started_at=now, at=now, interval_seconds=DEADLINE,
            models=(report,),
        )
    )  # fmt: skip
    done = ferry(*arguments, "-o", "json")
    assert done.code == 0, done.err
    require_shape(command, done.json)
