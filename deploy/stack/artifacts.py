"""What the servers are made of, fetched or built once into the cache.

An artefact is a folder under a name that says its version. It is made under another name and renamed when it is
whole, so an interrupted install leaves nothing that looks finished.
"""

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from deploy.stack import versions
from deploy.stack.errors import InstallError
from deploy.stack.locking import queued
from deploy.stack.tools import find_go

Progress = Callable[[str], None]

_DOWNLOADS_AT_ONCE = 8
_MAVEN_TIMEOUT_S = 60
_DRAFT_PREFIX = ".draft-"


class ArtifactCache:
    """The cache folder of all stacks on this machine."""

    def __init__(self, folder: Path, environ: Mapping[str, str]) -> None:
        self._folder = folder / "stack"
        self._environ = environ

    def kafka_jars(self, progress: Progress) -> list[Path]:
        """Kafka and all it depends on.

        Raises:
            InstallError: they cannot be fetched, or are not the pinned ones.
        """
        return self._jars("kafka", versions.KAFKA_COORDINATES, versions.KAFKA_JARS_DIGEST, progress)

    def flink_kafka_connector(self, progress: Progress) -> Path:
        """Flink's Kafka connector, one jar with its dependencies inside.

        Raises:
            InstallError: it cannot be fetched, or is not the pinned one.
        """
        coordinate, digest = versions.FLINK_KAFKA_CONNECTOR, versions.FLINK_KAFKA_CONNECTOR_DIGEST
        return self._jars("flink-kafka", (coordinate,), digest, progress, transitive=False)[0]

    def flink_s3_filesystem(self, progress: Progress) -> Path:
        """Flink's S3 file system plugin, one jar with its dependencies inside.

        Raises:
            InstallError: it cannot be fetched, or is not the pinned one.
        """
        coordinate, digest = versions.FLINK_S3_FILESYSTEM, versions.FLINK_S3_FILESYSTEM_DIGEST
        return self._jars("flink-s3", (coordinate,), digest, progress, transitive=False)[0]

    def minio(self, progress: Progress) -> Path:
        """The MinIO server's binary.

        Raises:
            MissingToolError: there is no Go.
            InstallError: the build failed.
        """

        def build(draft: Path) -> None:
            progress("building MinIO from source: about 2.5 minutes, this once")
            self._go_install(versions.MINIO_MODULE, draft)

        return self._artifact(f"minio-{versions.MINIO}", build) / "minio"

    def _jars(
        self, name: str, coordinates: Sequence[str], digest: str, progress: Progress, *, transitive: bool = True
    ) -> list[Path]:
        def fetch(draft: Path) -> None:
            progress(f"fetching {', '.join(coordinates)}")
            _fetch_jars(coordinates, draft, transitive=transitive)
            found = digest_of(draft)
            if found != digest:
                raise InstallError(
                    f"the jars of {coordinates[0]} are not the pinned ones (digest {found}): look at the "
                    "Maven repository they come from before trusting them"
                )

        return sorted(self._artifact(f"{name}-{digest[:16]}", fetch).glob("*.jar"))

    def _artifact(self, name: str, make: Callable[[Path], None]) -> Path:
        target = self._folder / name
        if target.exists():
            return target
        self._folder.mkdir(parents=True, exist_ok=True)
        with queued(self._folder / "lock"):
            if not target.exists():
                self._remove_drafts()
                draft = Path(tempfile.mkdtemp(prefix=_DRAFT_PREFIX, dir=self._folder))
                try:
                    make(draft)
                    draft.rename(target)
                finally:
                    shutil.rmtree(draft, ignore_errors=True)
        return target

    def _remove_drafts(self) -> None:
        for draft in self._folder.glob(f"{_DRAFT_PREFIX}*"):
            shutil.rmtree(draft, ignore_errors=True)

    def _go_install(self, module: str, folder: Path) -> None:
        environ = {**self._environ, "GOBIN": str(folder), "CGO_ENABLED": "0"}
        command = [str(find_go(self._environ)), "install", "-ldflags=-s -w", module]
        answer = subprocess.run(
            command, env=environ, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        if answer.returncode:
            last = (answer.stderr.strip().splitlines() or ["no output"])[-1]
            raise InstallError(f"`{' '.join(command)}` failed ({last}): check the network and GOPROXY, run it again")


def digest_of(folder: Path) -> str:
    """SHA-256 over the sorted lines "<sha256>  <name>" of a folder's jars."""
    lines = [
        f"{hashlib.sha256(jar.read_bytes()).hexdigest()}  {jar.name}\n" for jar in sorted(folder.glob("*.jar"))
    ]
    return hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()


def _fetch_jars(coordinates: Sequence[str], folder: Path, *, transitive: bool) -> None:
    from jgo.maven import MavenContext  # noqa: PLC0415 - an extra, and needed on the first run only

    # jgo writes downloads in place, so its repository is inside the draft too
    with tempfile.TemporaryDirectory(prefix=_DRAFT_PREFIX, dir=folder.parent) as repository:
        context = MavenContext(repo_cache=Path(repository), timeout=_MAVEN_TIMEOUT_S)
        try:
            wanted = [context.create_dependency(coordinate) for coordinate in coordinates]
            resolved, behind = context.resolver.resolve(wanted) if transitive else (wanted, [])
            jars = [each.artifact for each in (*resolved, *behind) if each.artifact.packaging == "jar"]
            with ThreadPoolExecutor(_DOWNLOADS_AT_ONCE) as pool:
                for file in pool.map(lambda jar: Path(jar.resolve()), jars):
                    os.link(file, folder / file.name)
        except (RuntimeError, OSError, ValueError) as error:  # requests' errors are OSErrors
            reason = str(error).splitlines()[0]
            raise InstallError(
                f"cannot fetch {coordinates[0]} ({reason}): check the network and run it again"
            ) from error
