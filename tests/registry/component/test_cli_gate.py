"""Files that `ferry publish` has judged in the processes of the load gate."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.registry.ferry import Ferry


def test_a_file_is_judged_before_it_is_published(
    ferry: Ferry, file: Callable[..., str], tmp_path: Path
) -> None:
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(b"no model at all")
    refused = ferry("publish", "digits", str(bad))
    assert (refused.code, refused.out) == (5, "")
    assert "refused by gate" in refused.err
    assert ferry("publish", "digits", file()).code == 0
    assert [line["model"] for line in ferry("list", "-o", "json").json] == ["digits"]
