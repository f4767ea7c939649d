"""What the servers are made of, fetched or built once into the cache.

An artefact is a folder under a name that says its version. It is made under another name and renamed when it
is whole, so an interrupted install leaves nothing that looks finished.
"""

import hashlib
import os
import shutil
import subprocess
import tempfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ferryline.deploy.stack import class_archives, versions
from ferryline.deploy.stack.class_archives import ClassArchives
from ferryline.deploy.stack.errors import InstallError
from ferryline.deploy.stack.locking import queued
from ferryline.deploy.stack.tools import find_go
from ferryline.deploy.stack.versions import JarSet

Progress = Callable[[str], None]

_DOWNLOADS_AT_ONCE = 8
_MAVEN_TIMEOUT_S = 60
_DRAFT_PREFIX = ".draft-"
_PLANNER_LOADER = "flink-table-planner-loader"
_PLANNER = "flink-table-planner.jar"


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

    def java(self, found: Path, progress: Progress) -> Path:
        """A Java that has the archive of its own classes: `found`, or a copy of it; the wheel's has none.

        Without it every process loads and verifies a thousand classes of the JDK itself.
        """
        if class_archives.has_base_archive(found):
            return found

        def copy(draft: Path) -> None:
            progress("preparing Java's own class archive")
            draft.rmdir()
            shutil.copytree(found, draft, copy_function=_link_or_copy, symlinks=True)
            command = [str(draft / "bin" / "java"), "-Xshare:dump"]
            subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
            if not class_archives.has_base_archive(draft):
                progress("this Java cannot archive its classes: servers start more slowly")

        return self._artifact(class_archives.name_of_java(found), copy)

    def flink_lib(self, jars: Sequence[Path], progress: Progress) -> Path:
        """A folder with these jars of Flink, one for all stacks: class archives know class paths by name.

        The planner lies in it as it is. Its loader would unpack it in each process anew, hide its classes
        from jobs and keep them out of archives.
        """

        def link(draft: Path) -> None:
            progress("preparing Flink's jars")
            for jar in jars:
                if not (jar.name.startswith(_PLANNER_LOADER) and _unpack_planner(jar, draft)):
                    _link_or_copy(str(jar.resolve()), str(draft / jar.name))

        return self._artifact(class_archives.name_of_lib(jars), link)

    def archives(self, java_home: Path, jars: Sequence[Path]) -> ClassArchives:
        """The class archives for a Java and these jars, which may not have been recorded yet."""
        name = class_archives.name_of_archives(java_home, jars)
        return class_archives.archives_of(self._environ, self._folder / name)

    def record(self, archives: ClassArchives, record: Callable[[Path], None]) -> None:
        """Have archives written by `record`, which gets the folder for them, unless they are there."""
        self._artifact(archives.folder.name, record)

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


def _link_or_copy(source: str, target: str) -> str:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copy2(source, target)
    return target


def _unpack_planner(loader: Path, folder: Path) -> bool:
    """Whether the planner was found inside its loader, and lies in `folder` now."""
    target = folder / loader.name.replace(_PLANNER_LOADER, "flink-table-planner_2.12")
    with zipfile.ZipFile(loader) as archive:
        if _PLANNER not in archive.namelist():
            return False
        with archive.open(_PLANNER) as source, target.open("wb") as written:
            shutil.copyfileobj(source, written)
    return True


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
