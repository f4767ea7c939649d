"""Flink: a session cluster of one job manager and one task manager, from the `apache-flink` wheel.

The wheel is never written to: configuration, jars and plugins are folders of the stack that Flink's scripts
are pointed at.
"""

import importlib.util
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ferryline.deploy.stack import http_probe
from ferryline.deploy.stack.errors import MissingToolError
from ferryline.deploy.stack.launch import Launch
from ferryline.deploy.stack.parts.flink_config import LOG_CONFIG, METRICS_PORT, FlinkSettings, render_config
from ferryline.deploy.stack.ports import LOOPBACK, Listener
from ferryline.registry.extras import Extra, how_to_install

JOB_MANAGER = "jobmanager"
TASK_MANAGER = "taskmanager"
REST = Listener("flink", "Flink", default=8081, flag="--flink-port", variable="FERRY_FLINK")
RPC = Listener("flink-rpc", "Flink's job manager")
TASK_METRICS = Listener("flink-metrics", "the task manager's metrics", default=9249)
JOB_METRICS = Listener("jobmanager-metrics", "the job manager's metrics", default=9250)

_IDENT, _HOSTNAME = "ferry", "local"  # parts of the log names that Flink's scripts make
_DEADLINE_S = 240.0


@dataclass(frozen=True)
class FlinkFolders:
    """What Flink's scripts are pointed at.

    Attributes:
        distribution: the wheel's Flink: bin/, lib/, opt/.
        root: the stack's own folder for Flink.
        lib: the jars of every class path.
    """

    distribution: Path
    root: Path
    lib: Path

    @property
    def conf(self) -> Path:
        """The configuration."""
        return self.root / "conf"

    @property
    def scratch(self) -> Path:
        """Temporary files."""
        return self.root / "tmp"

    def program(self, name: str) -> str:
        """The path of one of the distribution's scripts."""
        return str(self.distribution / "bin" / name)

    def environ(self, base: Mapping[str, str], java_home: Path) -> dict[str, str]:
        """The environment of Flink's scripts; settings of some other Flink are left out."""
        foreign = {"JVM_ARGS", "_FLINK_HOME_DETERMINED"}
        clean = {k: v for k, v in base.items() if not k.startswith("FLINK_") and k not in foreign}
        return {**clean, **self.variables(java_home)}

    def variables(self, java_home: Path) -> dict[str, str]:
        """The variables that point Flink's scripts at this cluster."""
        return {
            "JAVA_HOME": str(java_home),
            "FLINK_HOME": str(self.distribution),
            "FLINK_CONF_DIR": str(self.conf),
            "FLINK_LIB_DIR": str(self.lib),
            "FLINK_OPT_DIR": str(self.root / "opt"),
            "FLINK_PLUGINS_DIR": str(self.root / "plugins"),
            "FLINK_LOG_DIR": str(self.root / "log"),
            "FLINK_PID_DIR": str(self.root / "pid"),
            "FLINK_IDENT_STRING": _IDENT,
            "HOSTNAME": _HOSTNAME,
        }


def client_command(folders: FlinkFolders, java_home: Path, options: Sequence[str]) -> list[str]:
    """The command that `bin/flink` ends in, to which its arguments are to be added.

    The script starts two Javas and reads a dozen settings only to find these options.

    Args:
        folders: those of the cluster.
        java_home: the Java that runs it.
        options: of the JVM, as `flink_config.client_options` gives them.
    """
    # in the order of Flink's scripts, which the class archive was recorded with or can be used with
    jars = sorted(folders.lib.glob("*.jar"), key=lambda jar: (jar.name.startswith("flink-dist"), jar.name))
    log = folders.root / "log" / f"flink-{_IDENT}-client-{_HOSTNAME}.log"
    logging = f"file:{folders.conf / 'log4j-cli.properties'}"
    return [
        str(java_home / "bin" / "java"),
        *options,
        f"-Dlog.file={log}",
        f"-Dlog4j.configurationFile={logging}",
        "-classpath",
        ":".join(map(str, jars)),
        "org.apache.flink.client.cli.CliFrontend",
    ]


def find_distribution() -> Path:
    """The Flink inside the `apache-flink` wheel.

    Raises:
        MissingToolError: it is not installed.
    """
    spec = importlib.util.find_spec("pyflink")
    if spec is None or spec.origin is None:
        raise MissingToolError(
            f"no Flink: choose parts with --only kafka,minio, or {how_to_install(Extra.STACK, ['pyflink'])}"
        )
    return Path(spec.origin).parent


def write_folders(
    folders: FlinkFolders,
    settings: FlinkSettings,
    *,
    filesystems: list[Path],
    tools: list[Path],
) -> None:
    """Make the folders anew: links to the wheel's jars and ours, and the configuration."""
    for name in ("conf", "opt", "plugins", "log", "pid", "tmp"):
        shutil.rmtree(folders.root / name, ignore_errors=True)
    for name in ("log", "pid", "tmp"):
        (folders.root / name).mkdir(parents=True)
    _link_all(
        sorted(p for p in (folders.distribution / "plugins").iterdir() if p.is_dir()),
        folders.root / "plugins",
    )
    _link_all(filesystems, folders.root / "plugins" / "s3-fs-presto")
    _link_all([*(folders.distribution / "opt").iterdir(), *tools], folders.root / "opt")
    write_config(folders, settings)


def write_config(folders: FlinkFolders, settings: FlinkSettings) -> None:
    """Write the whole conf/ folder: Flink's scripts want all of it wherever FLINK_CONF_DIR points."""
    shutil.copytree(folders.distribution / "conf", folders.conf, dirs_exist_ok=True)
    (folders.conf / "log4j-console.properties").write_text(LOG_CONFIG)
    config = folders.conf / "config.yaml"
    config.unlink(missing_ok=True)
    config.touch(mode=0o600)  # it holds the object store's password
    config.write_text(render_config(settings))


def job_manager(
    folders: FlinkFolders, environ: Mapping[str, str], rest: str, log: Path, *, metrics_port: int
) -> Launch:
    """How to start the job manager; ready when its REST interface answers."""
    _show_log_in_web_page(folders, "standalonesession", log)
    start = [folders.program("jobmanager.sh"), "start-foreground"]
    return Launch(
        name=JOB_MANAGER,
        command=[*start, "-D", f"{METRICS_PORT}={metrics_port}"],
        environ=environ,
        folder=folders.root,
        address=rest,
        ready=lambda: answers(rest),
        deadline_s=_DEADLINE_S,
    )


def task_manager(
    folders: FlinkFolders,
    environ: Mapping[str, str],
    rest: str,
    log: Path,
    resource_id: str,
    *,
    slots: int,
    metrics_port: int,
) -> Launch:
    """How to start the task manager; ready when the job manager counts its slots."""
    _show_log_in_web_page(folders, "taskexecutor", log)
    start = [folders.program("taskmanager.sh"), "start-foreground"]
    resource = f"taskmanager.resource-id={resource_id}"
    return Launch(
        name=TASK_MANAGER,
        command=[*start, "-D", resource, "-D", f"{METRICS_PORT}={metrics_port}"],
        environ=environ,
        folder=folders.root,
        address=f"{slots} slots, {metrics_url(metrics_port)}",
        ready=lambda: has_registered(rest, resource_id, slots),
        deadline_s=_DEADLINE_S,
    )


def metrics_url(port: int) -> str:
    """Where Prometheus reads the metrics of a job or task manager."""
    return f"http://{LOOPBACK}:{port}/metrics"


def answers(rest: str) -> bool:
    """Whether a job manager answers at a REST URL."""
    return _get(rest, "overview") is not None


def count_slots(rest: str) -> int:
    """How many task slots a cluster has; 0 if it does not answer."""
    overview = _get(rest, "overview") or {}
    total = overview.get("slots-total", 0)
    return total if isinstance(total, int) else 0


def has_registered(rest: str, resource_id: str, slots: int) -> bool:
    """Whether a task manager of this id offers all its slots."""
    listed = (_get(rest, "taskmanagers") or {}).get("taskmanagers")
    return isinstance(listed, list) and any(
        each.get("id") == resource_id and each.get("slotsNumber") == slots for each in listed
    )


def _get(rest: str, path: str) -> dict[str, object] | None:
    answer = http_probe.get(f"{rest.rstrip('/')}/{path}")
    if answer is None or not answer.is_success:
        return None
    try:
        body = answer.json()
    except ValueError:
        return None
    return body if isinstance(body, dict) else None


def lib_jars(distribution: Path, connectors: Sequence[Path]) -> list[Path]:
    """The jars of every class path of a cluster, `flink-python` among them.

    Every client would otherwise ship `flink-python` with each job, and shipped ones leave their class loader
    behind when the job ends: the metaspace grew by 24 MB a job, and the sixth ended the task manager. In lib,
    with parent-first loading, six jobs added 3 MB.

    Raises:
        MissingToolError: the distribution has none.
    """
    python = list((distribution / "opt").glob("flink-python-*.jar"))
    if python:
        return sorted([*(distribution / "lib").glob("*.jar"), *python, *connectors])
    raise MissingToolError("the apache-flink wheel has no flink-python jar; install apache-flink again")


def _link_all(targets: list[Path], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for target in targets:
        (folder / target.name).symlink_to(target)


def _show_log_in_web_page(folders: FlinkFolders, daemon: str, log: Path) -> None:
    # the web page reads a file of this name; without the link it would show none
    link = folders.root / "log" / f"flink-{_IDENT}-{daemon}-0-{_HOSTNAME}.log"
    link.unlink(missing_ok=True)
    link.symlink_to(log)
