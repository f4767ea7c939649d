"""Parts of the stack that are built on this machine."""

from pathlib import Path

import pytest

from ferryline.deploy.stack.artifacts import ArtifactCache
from ferryline.deploy.stack.errors import InstallError


def test_a_failed_build_says_why_and_what_to_do(tmp_path: Path) -> None:
    go = tmp_path / "bin" / "go"
    go.parent.mkdir()
    go.write_text(
        '#!/bin/sh\n[ "$1" = version ] && echo go version go1.30.0 && exit\necho no route >&2; exit 1\n'
    )
    go.chmod(0o755)
    with pytest.raises(InstallError, match=r"no route.*GOPROXY"):
        ArtifactCache(tmp_path / "cache", {"PATH": f"{go.parent}:/bin"}).minio(lambda _line: None)
