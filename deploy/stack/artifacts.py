"""What the servers are made of, fetched or built once into the cache.

An artefact is a folder under a name that says its version. It is made under another name and renamed when it
is whole, so an interrupted install leaves nothing that looks finished.
"""

import hashlib
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from deploy.stack import versions
from deploy.stack.errors import InstallError
from deploy.stack.locking import queued
from deploy.stack.tools import find_go
from deploy.stack.versions import JarSet

Progress = Callable[[str], None]

_DOWNLOADS_AT_ONCE = 8
_MAVEN_TIMEOUT_S = 60
_DRAFT_PREFIX = ".draft-"


class ArtifactCache:
    """The cache folder of all stacks on this machine."""

    def __init__(self, folder: Path, environ: Mapping[str, str]) -> None:
        self._folder = folder / "stack"
        self._environ = environ

    def jars(self, wanted: JarSet, progress: Progress) -> list[Path]:
        """A set of jars, sorted by name.

        Raises:
            InstallError: they cannot be fetched, or are not the pinned ones.
        """

        def fetch(draft: Path) -> None:
            progress(f"fetching {wanted.name}")
            _fetch_jars(wanted, draft)
            found = digest_of(draft)
            if found != wanted.digest:
                raise InstallError(
                    f"the jars of {wanted.name} are not the pinned ones (digest {found}): look at the "
                    "Maven repository they come from before trusting them"
                )

        return sorted(self._artifact(f"{wanted.name}-{wanted.digest[:8]}", fetch).glob("*.jar"))

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
            raise InstallError(
                f"`{' '.join(command)}` failed ({last}): check the network and GOPROXY, run it again"
            )


def digest_of(folder: Path) -> str:
    """SHA-256 over the sorted lines "<sha256>  <name>" of a folder's jars."""
    lines = [
        f"{hashlib.sha256(jar.read_bytes()).hexdigest()}  {jar.name}\n"
        for jar in sorted(folder.glob("*.jar"))
    ]
    return hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()


def _fetch_jars(wanted: JarSet, folder: Path) -> None:
    from jgo.maven import MavenContext  # an extra, and needed on the first run only

    # jgo writes downloads in place, so its repository is thrown away with the draft
    with tempfile.TemporaryDirectory(prefix=_DRAFT_PREFIX, dir=folder.parent) as repository:
        context = MavenContext(repo_cache=Path(repository), timeout=_MAVEN_TIMEOUT_S)
        try:
            jars = [context.create_dependency(each).artifact for each in wanted.alone]
            for each in wanted.with_dependencies:
                found, behind = context.resolver.resolve([context.create_dependency(each)])
                jars += [dependency.artifact for dependency in (*found, *behind)]
            with ThreadPoolExecutor(_DOWNLOADS_AT_ONCE) as pool:
                files = pool.map(
                    lambda jar: Path(jar.resolve()), (jar for jar in jars if jar.packaging == "jar")
                )
                for file in files:
                    file.rename(folder / file.name)
        except (RuntimeError, OSError, ValueError) as error:  # those of requests are OSErrors
            reason = str(error).splitlines()[0]
            raise InstallError(
                f"cannot fetch {wanted.name} ({reason}): check the network, run it again"
            ) from error
