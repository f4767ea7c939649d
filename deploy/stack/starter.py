"""Turns the parts that are missing into launches: installs what they need, then prepares their folders."""

import contextlib
import secrets
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from ferryline.deploy.stack import class_archives, versions
from ferryline.deploy.stack.addresses import Credentials, ObjectStore, credentials_environ, store_endpoint
from ferryline.deploy.stack.artifacts import ArtifactCache, Progress
from ferryline.deploy.stack.class_archives import ClassArchives
from ferryline.deploy.stack.errors import MissingToolError
from ferryline.deploy.stack.external import External
from ferryline.deploy.stack.home import StackHome
from ferryline.deploy.stack.launch import Launch
from ferryline.deploy.stack.parts import flink, kafka, minio
from ferryline.deploy.stack.parts.flink_config import FlinkSettings, client_options, java_options_of
from ferryline.deploy.stack.ports import LOOPBACK, Listener, any_free
from ferryline.deploy.stack.state import StackState
from ferryline.deploy.stack.tools import find_java_home


class Starter:
    """Prepares processes of one stack.

    Args:
        home: the stack's folders.
        cache: where artefacts are installed.
        environ: the environment servers inherit.
        progress: told what takes time.
    """

    def __init__(
        self, home: StackHome, cache: ArtifactCache, environ: Mapping[str, str], progress: Progress
    ) -> None:
        self._home = home
        self._cache = cache
        self._environ = environ
        self._progress = progress

    def install(self, names: frozenset[str]) -> None:
        """Bring everything these processes need into the cache.

        Raises:
            MissingToolError: there is no Java, Go or Flink.
            InstallError: a download or a build failed.
        """
        if names & {kafka.NAME, flink.JOB_MANAGER, flink.TASK_MANAGER}:
            self.java_home()
        if kafka.NAME in names:
            self._cache.jars(versions.KAFKA_JARS, self._progress)
        if flink.JOB_MANAGER in names:
            self._flink_lib()
            self._cache.jars(versions.FLINK_S3_FILESYSTEM, self._progress)
            self._cache.jars(versions.FLINK_SQL_GATEWAY, self._progress)
        if minio.NAME in names:
            self._cache.minio(self._progress)

    def launches(self, names: frozenset[str], state: StackState, external: External) -> Iterator[Launch]:
        """Prepare processes one by one, each to be started before the next; Flink needs to know of MinIO.

        Raises:
            InstallError: a folder could not be prepared.
        """
        if minio.NAME in names:
            yield self._minio(state)
        if flink.JOB_MANAGER in names and flink.TASK_MANAGER in names:
            self._write_flink(state, external)
        if flink.JOB_MANAGER in names:
            yield self._job_manager(state)
        if kafka.NAME in names:
            yield self._kafka(state)
        if flink.TASK_MANAGER in names:
            yield self._task_manager(state)

    def probes(self, state: StackState) -> Mapping[str, Callable[[], bool]]:
        """How to ask each process that already runs."""
        kafka_address = f"{LOOPBACK}:{state.ports.get(kafka.BROKER.name)}"
        endpoint = f"http://{LOOPBACK}:{state.ports.get(minio.API.name)}"
        rest = rest_url(state)
        return {
            kafka.NAME: lambda: kafka.answers(kafka_address),
            minio.NAME: lambda: minio.is_ready(endpoint),
            flink.JOB_MANAGER: lambda: flink.answers(rest),
            flink.TASK_MANAGER: lambda: flink.count_slots(rest) > 0,
        }

    def _kafka(self, state: StackState) -> Launch:
        return kafka.prepare(
            port=state.ports[kafka.BROKER.name],
            controller_port=state.ports[kafka.CONTROLLER.name],
            folder=self._home.kafka,
            java_home=self.java_home(),
            jars=self._cache.jars(versions.KAFKA_JARS, self._progress),
            archived=self.archives().options(class_archives.KAFKA),
            environ=self._environ,
        )

    def _minio(self, state: StackState) -> Launch:
        return minio.prepare(
            port=state.ports[minio.API.name],
            folder=self._home.minio,
            binary=self._cache.minio(self._progress),
            credentials=Credentials(state.access_key, state.secret_key),
            environ=self._environ,
        )

    def _job_manager(self, state: StackState) -> Launch:
        folders, environ = self._flink()
        return flink.job_manager(
            folders,
            environ,
            rest_url(state),
            self._home.log_of(flink.JOB_MANAGER),
            metrics_port=_metrics_port(state, flink.JOB_METRICS),
        )

    def _task_manager(self, state: StackState) -> Launch:
        folders, environ = self._flink()
        # a new name each time: the job manager still lists a killed one until its heartbeats are missed
        resource_id = f"taskmanager-{secrets.token_hex(3)}"
        log = self._home.log_of(flink.TASK_MANAGER)
        environ = {**environ, **self._worker_credentials(state)}
        return flink.task_manager(
            folders,
            environ,
            rest_url(state),
            log,
            resource_id,
            slots=state.flink_slots,
            metrics_port=_metrics_port(state, flink.TASK_METRICS),
        )

    def _worker_credentials(self, state: StackState) -> Mapping[str, str]:
        """What Python workers, which inherit the task manager's environment, sign in to the store with."""
        if minio.NAME not in state.processes:
            return {}
        return credentials_environ(Credentials(state.access_key, state.secret_key))

    def java_home(self) -> Path:
        """The Java that runs everything.

        Raises:
            MissingToolError: there is none.
        """
        return self._cache.java(find_java_home(self._environ), self._progress)

    def flink_folders(self) -> flink.FlinkFolders:
        """What Flink's scripts are pointed at.

        Raises:
            MissingToolError: there is no Flink.
        """
        return flink.FlinkFolders(flink.find_distribution(), self._home.flink, self._flink_lib())

    def archives(self) -> ClassArchives:
        """The class archives of Kafka and Flink, which may not have been recorded."""
        jars = self._cache.jars(versions.KAFKA_JARS, self._progress)
        with contextlib.suppress(MissingToolError):  # a Kafka without Flink has none
            jars += sorted(self._flink_lib().glob("*.jar"))
        return self._cache.archives(self.java_home(), jars)

    def flink_client(self) -> tuple[list[str], dict[str, str]]:
        """The command and the environment of Flink's client.

        Raises:
            MissingToolError: there is no Flink, or no Java.
        """
        folders, java_home = self.flink_folders(), self.java_home()
        options = [*_java_options(folders).split(), *client_options(self.archives())]
        return flink.client_command(folders, java_home, options), folders.environ(self._environ, java_home)

    def _flink_lib(self) -> Path:
        connectors = self._cache.jars(versions.FLINK_KAFKA_CONNECTOR, self._progress)
        return self._cache.flink_lib(flink.lib_jars(flink.find_distribution(), connectors), self._progress)

    def _flink(self) -> tuple[flink.FlinkFolders, Mapping[str, str]]:
        folders = self.flink_folders()
        return folders, folders.environ(self._environ, self.java_home())

    def _write_flink(self, state: StackState, external: External) -> None:
        folders, _ = self._flink()
        settings = FlinkSettings(
            host=LOOPBACK,
            rest_port=state.ports[flink.REST.name],
            rpc_port=state.ports[flink.RPC.name],
            java_home=self.java_home(),
            java_options=_java_options(folders),
            python=Path(sys.executable),
            archives=self.archives(),
            slots=state.flink_slots,
            scratch=folders.scratch,
            store=object_store(state, external, self._environ),
        )
        flink.write_folders(
            folders,
            settings,
            filesystems=self._cache.jars(versions.FLINK_S3_FILESYSTEM, self._progress),
            tools=self._cache.jars(versions.FLINK_SQL_GATEWAY, self._progress),
        )


def rest_url(state: StackState) -> str:
    """The job manager's REST URL."""
    return f"http://{LOOPBACK}:{state.ports.get(flink.REST.name)}"


def _java_options(folders: flink.FlinkFolders) -> str:
    return java_options_of((folders.distribution / "conf" / "config.yaml").read_text())


def _metrics_port(state: StackState, listener: Listener) -> int:
    # one that an older release started has no such port yet
    return state.ports.setdefault(listener.name, any_free())


def object_store(state: StackState, external: External, environ: Mapping[str, str]) -> ObjectStore | None:
    """Where Flink keeps checkpoints: the stack's MinIO, else the external S3, else nowhere but on disk."""
    if external.store:
        endpoint = store_endpoint(external.store)
        return None if endpoint is None else ObjectStore(endpoint, Credentials.from_environ(environ))
    if minio.NAME in state.processes:
        endpoint = f"http://{LOOPBACK}:{state.ports[minio.API.name]}"
        return ObjectStore(endpoint, Credentials(state.access_key, state.secret_key))
    return None
