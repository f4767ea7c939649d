"""What a person reads of versions and channels."""

from __future__ import annotations

import orjson
import pytest

from ferryline.registry import Registry, garbage
from tests.registry.ferry import Ferry

pytestmark = pytest.mark.usefixtures("published")


def test_the_table_tells_a_canary_from_what_serves_the_rest(ferry: Ferry) -> None:
    ferry("promote", "digits@1", "--canary", "5")
    serves = {line.split()[0]: line for line in ferry("list", "digits").out.splitlines()}
    assert serves["1"].endswith("production (5 %)")
    assert serves["3"].endswith("production (95 %)")
    assert "production (5 %)" in ferry("show", "digits@1").out
    assert ferry("show", "digits@1", "-o", "json").json["serves"] == ["production"]


def test_show_tells_what_became_of_a_file(ferry: Ferry, store_url: str) -> None:
    registry = Registry.open(store_url)
    digest = registry.versions("digits").get(1).blob.digest
    assert digest in ferry("show", "digits@1").out.splitlines()[3]
    assert ferry("show", "digits@1").out.splitlines()[3].endswith(digest)
    registry.store.put(garbage.collected_key(digest), b"{}")
    registry.store.delete(f"blobs/sha256/{digest.removeprefix('sha256:')}")
    assert f"{digest}, was collected on " in ferry("show", "digits@1").out


def test_json_holds_nothing_that_steers_a_terminal(ferry: Ferry) -> None:
    reason = "\x1b[31m \x7f \x9b31m \u202eevil \u2066 é 数"
    ferry("hold", "digits", "-m", reason)
    shown = ferry("history", "digits", "-n", "1", "-o", "json")
    assert shown.json[0]["reason"] == reason
    assert all(char.isprintable() or char == "\n" for char in shown.out)
    assert "é 数" in shown.out


def test_a_rollback_with_nowhere_to_go_does_not_deny_what_served(ferry: Ferry) -> None:
    for _ in range(2):
        assert ferry("rollback", "digits").code == 0
    refused = ferry("rollback", "digits")
    assert refused.code == 3
    assert "nothing served digits:production before version 1 that one could go back to" in refused.err
    assert orjson.loads(ferry("rollback", "digits", "--to", "3", "-o", "json").out)["version"] == 3
