"""The local stack as one object: start it, ask it, break it, stop it."""

import contextlib
import shutil
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from ferryline.deploy.stack import process
from ferryline.deploy.stack.addresses import Addresses, Credentials, default_environ
from ferryline.deploy.stack.artifacts import ArtifactCache, Progress
from ferryline.deploy.stack.catalog import LISTENERS_OF, PARTS, PROCESSES_OF, check_parts, processes_called
from ferryline.deploy.stack.class_archives import RECORD_VARIABLE, ClassArchives
from ferryline.deploy.stack.errors import InstallError, StackUsageError
from ferryline.deploy.stack.external import External, check_external, external_parts, own_addresses
from ferryline.deploy.stack.home import StackHome, cache_folder
from ferryline.deploy.stack.launch import Awaited, Launch, wait_until_ready
from ferryline.deploy.stack.locking import exclusive
from ferryline.deploy.stack.parts import flink, minio
from ferryline.deploy.stack.ports import choose_port, choose_ports
from ferryline.deploy.stack.starter import Starter
from ferryline.deploy.stack.state import StackState, load_state, save_state
from ferryline.deploy.stack.status import PartStatus, observe

_STOP_DEADLINE_S = 20.0
_ORPHAN_DEADLINE_S = 3.0
_RUNNING_DEADLINE_S = 120.0
_RECORDED_DEADLINE_S = 600.0
"""A process that records its classes writes them when it ends."""


def _silent(_message: str) -> None:
    pass


class LocalStack:
    """A Kafka, a MinIO and a Flink on this machine.

    Args:
        home: the folder of this stack; None takes FERRY_STACK_HOME or the user's state directory.
        cache: where downloads and builds are kept; None takes FERRY_CACHE or the user's cache directory.
        environ: says what runs elsewhere, and servers inherit it; None takes this process's environment.
    """

    def __init__(
        self, home: Path | None = None, cache: Path | None = None, environ: Mapping[str, str] | None = None
    ) -> None:
        self._environ = dict(environ) if environ is not None else default_environ()
        self.home = StackHome(home.absolute()) if home else StackHome.from_environ(self._environ)
        self._cache = ArtifactCache(cache.absolute() if cache else cache_folder(self._environ), self._environ)

    def up(
        self,
        parts: Iterable[str] = PARTS,
        *,
        ports: Mapping[str, int] | None = None,
        flink_slots: int | None = None,
        progress: Progress = _silent,
    ) -> Addresses:
        """Start what does not run and wait until all of it answers; a failure stops what this call started.

        Args:
            parts: any of `kafka`, `minio`, `flink`.
            ports: ports to use by part; the others keep their last port, their usual one or take a free one.
            flink_slots: task slots of a cluster that starts; None keeps the last number, at first 2.
            progress: told in a few words what is being done.

        Raises:
            StackUsageError: a part is unknown, a port is taken, a tool is missing, another `up` is at work.
            InstallError: a download or a build failed.
            PartFailedError: a server did not become ready.
            PartUnreachableError: a server named in the environment does not answer.
        """
        chosen = check_parts(parts)
        with self._changing() as state:
            external = external_parts(self._environ, state.ports)
            check_external(external, chosen)
            mine = [part for part in PARTS if part in chosen and not external.address_of(part)]
            wanted = frozenset(name for part in mine for name in PROCESSES_OF[part])
            self._choose_ports(state, mine, ports or {}, progress)
            if flink_slots is not None and not _alive(state) & set(PROCESSES_OF["flink"]):
                state.flink_slots = flink_slots
            self._start(state, wanted, external, progress)
            return self._addresses(state)

    def install(self, parts: Iterable[str] = PARTS, *, progress: Progress = _silent) -> None:
        """Bring what these parts need into the cache, start nothing; parts that run elsewhere need nothing.

        Args:
            parts: any of `kafka`, `minio`, `flink`.
            progress: told in a few words what is being done.

        Raises:
            StackUsageError: a part is unknown, a tool is missing.
            InstallError: a download or a build failed.
        """
        external = external_parts(self._environ, self._state().ports)
        mine = [part for part in check_parts(parts) if not external.address_of(part)]
        self._starter(progress).install(frozenset(name for part in mine for name in PROCESSES_OF[part]))

    def record_archives(self, record: Callable[[Path], None]) -> None:
        """Have the class archives of Kafka and Flink written by `record`, unless they are there.

        Where a part runs elsewhere there are none: recording needs all of them here, installed beforehand.

        Args:
            record: gets the folder that they belong into.

        Raises:
            StackUsageError: a tool is missing.
            InstallError: a download failed, or `record` wrote less than all.
        """

        def checked(folder: Path) -> None:
            record(folder)
            if missing := ClassArchives(folder).missing:
                raise InstallError(f"no archive of {', '.join(missing)} was written")

        external = external_parts(self._environ, self._state().ports)
        if not any(external.address_of(part) for part in PARTS):
            self._cache.record(self._starter(_silent).archives(), checked)

    def down(self, *, wipe: bool = False, progress: Progress = _silent) -> None:
        """Stop exactly what `up` started.

        Args:
            wipe: delete topics, buckets, checkpoints and logs as well.
            progress: told in a few words what is being done.

        Raises:
            StackBusyError: another `ferry-stack` is at work.
        """
        with self._changing() as state:
            if state.processes:
                progress("stopping " + ", ".join(state.processes))
            self._stop(state, tuple(state.processes))
            process.end_all(process.marked(f"{state.mark}/"), deadline_s=_ORPHAN_DEADLINE_S)
            if wipe:
                for folder in (self.home.kafka, self.home.minio, self.home.flink, self.home.logs):
                    shutil.rmtree(folder, ignore_errors=True)

    def status(self) -> list[PartStatus]:
        """What each part is doing, found by asking it."""
        state = self._state()
        external = external_parts(self._environ, state.ports)
        return observe(state, external, self._starter(_silent).probes(state))

    def addresses(self) -> Addresses:
        """Where the parts that run are reached."""
        return self._addresses(self._state())

    def kill_part(self, name: str, *, number: int = signal.SIGKILL) -> None:
        """Kill a part or one process of it, as a fault would; its workers are left to themselves.

        Args:
            name: `kafka`, `minio`, `jobmanager`, `taskmanager`, or `flink` for both of its processes.
            number: the signal.

        Raises:
            StackUsageError: there is no such part, or it does not run.
        """
        state = self._state()
        for each in processes_called(name):
            record = state.processes.get(each)
            if record is None or not process.signal_process(record, number):
                raise StackUsageError(f"{each} does not run: start it with `ferry-stack up`")
            if number == signal.SIGKILL:
                process.wait_gone(record, deadline_s=_STOP_DEADLINE_S)

    def start_part(self, name: str, *, progress: Progress = _silent) -> None:
        """Start a part or one process of it again where it was, and wait until it answers.

        Args:
            name: as in `kill_part`.
            progress: told in a few words what is being done.

        Raises:
            StackUsageError: there is no such part, or it never ran.
            PartFailedError: it did not become ready.
            PortTakenError: another server has taken its port meanwhile.
        """
        names = frozenset(processes_called(name))
        with self._changing() as state:
            missing = names - set(state.processes)
            if missing:
                raise StackUsageError(f"{', '.join(sorted(missing))} never ran here: use `ferry-stack up`")
            _require_ports(state, names - _alive(state))
            self._start(state, names, external_parts(self._environ, state.ports), progress)

    def flink_command(self, *arguments: str) -> tuple[list[str], dict[str, str]]:
        """Flink's own command line for this stack's cluster.

        Args:
            arguments: what follows `flink`, such as `run`, `-d`, `-pym`, `module`.

        Returns:
            The command and its whole environment.

        Raises:
            StackUsageError: this stack runs no Flink.
        """
        addresses = self.addresses()
        if addresses.flink_home is None:
            raise StackUsageError("this stack runs no Flink: start it with `ferry-stack up`")
        command, environ = self._starter(_silent).flink_client()
        return [*command, *arguments], {**environ, **addresses.environ()}

    @contextlib.contextmanager
    def _changing(self) -> Iterator[StackState]:
        self.home.create()
        with exclusive(self.home.lock_file):
            state = self._state()
            try:
                yield state
            finally:
                save_state(self.home.state_file, state)

    def _state(self) -> StackState:
        return load_state(self.home.state_file)

    def _starter(self, progress: Progress) -> Starter:
        return Starter(self.home, self._cache, self._environ, progress)

    def _choose_ports(
        self, state: StackState, parts: list[str], wanted: Mapping[str, int], progress: Progress
    ) -> None:
        alive = _alive(state)
        running = [part for part in PARTS if alive & set(PROCESSES_OF[part])]
        choices = choose_ports(
            [each for part in parts if part not in running for each in LISTENERS_OF[part]],
            wanted=wanted,
            last=state.ports,
            running={
                each.name: state.ports[each.name]
                for part in running
                for each in LISTENERS_OF[part]
                if each.name in state.ports  # a stack that an older release started has fewer
            },
        )
        for choice in choices:
            if choice.instead_of is not None:
                progress(f"port {choice.instead_of} is taken: {choice.listener.title} gets {choice.port}")
            state.ports[choice.listener.name] = choice.port

    def _start(
        self, state: StackState, names: frozenset[str], external: External, progress: Progress
    ) -> None:
        starter = self._starter(progress)
        alive = _alive(state) & names
        missing = names - alive
        if minio.NAME in missing:
            credentials = Credentials.from_environ(self._environ)
            state.access_key, state.secret_key = credentials.access_key, credentials.secret_key
        starter.install(missing)
        if missing:
            progress("starting " + ", ".join(sorted(missing)))
        self._remove_orphans(state, missing)
        probes = starter.probes(state)
        awaited = [Awaited(n, probes[n], _RUNNING_DEADLINE_S, state.processes[n]) for n in sorted(alive)]
        try:
            awaited.extend(
                self._spawn(state, launch) for launch in starter.launches(missing, state, external)
            )
            wait_until_ready(awaited, progress)
            if minio.NAME in names:
                credentials = Credentials(state.access_key, state.secret_key)
                minio.create_buckets(state.processes[minio.NAME].address, credentials)
        except BaseException:  # Ctrl-C too: nothing half-started stays behind
            self._stop(state, tuple(name for name in missing if name in state.processes))
            raise

    def _spawn(self, state: StackState, launch: Launch) -> Awaited:
        record = process.spawn(
            launch.command,
            environ=launch.environ,
            mark=f"{state.mark}/{launch.name}",
            folder=launch.folder,
            log=self.home.log_of(launch.name),
            address=launch.address,
        )
        state.processes[launch.name] = record
        save_state(self.home.state_file, state)
        return Awaited(launch.name, launch.ready, launch.deadline_s, record)

    def _stop(self, state: StackState, names: Iterable[str]) -> None:
        names = tuple(names)
        recording = RECORD_VARIABLE in self._environ
        deadline_s = _RECORDED_DEADLINE_S if recording else _STOP_DEADLINE_S
        process.stop([state.processes[name] for name in names], deadline_s=deadline_s)
        self._remove_orphans(state, names)
        for name in names:
            del state.processes[name]

    def _remove_orphans(self, state: StackState, names: Iterable[str]) -> None:
        # Python workers outlive a task manager that was killed, and a crash can come before a pid is recorded
        save_state(self.home.state_file, state)
        marks = tuple(f"{state.mark}/{name}" for name in names)
        if marks:
            process.end_all(process.marked(marks), deadline_s=_ORPHAN_DEADLINE_S)

    def _addresses(self, state: StackState) -> Addresses:
        external = external_parts(self._environ, state.ports)
        own = own_addresses(state.ports)
        alive = _alive(state)
        has_minio, has_flink = minio.NAME in alive and not external.store, flink.JOB_MANAGER in alive
        home = flink.find_distribution() if has_flink else None
        starter = self._starter(_silent)
        return Addresses(
            kafka=external.kafka or (own.kafka if "kafka" in alive else ""),
            store=external.store or (own.store if has_minio else ""),
            flink=external.flink or (own.flink if has_flink else ""),
            flink_metrics=_metrics_address(state, alive),
            access_key=state.access_key if has_minio else "",
            secret_key=state.secret_key if has_minio else "",
            flink_home=home,
            flink_environ=starter.flink_folders().variables(starter.java_home()) if home else {},
        )


def _require_ports(state: StackState, starting: frozenset[str]) -> None:
    """Require that no other server, which would answer in its place, has the port of a part that starts."""
    for part in starting & set(LISTENERS_OF):
        for listener in LISTENERS_OF[part]:
            choose_port(listener, wanted=state.ports[listener.name], last=None, taken=frozenset())


def _metrics_address(state: StackState, alive: frozenset[str]) -> str:
    port = state.ports.get(flink.TASK_METRICS.name)
    return flink.metrics_url(port) if port is not None and flink.TASK_MANAGER in alive else ""


def _alive(state: StackState) -> frozenset[str]:
    return frozenset(name for name, record in state.processes.items() if process.is_alive(record))
