"""Flink's configuration as text."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ferryline.deploy.stack.addresses import FLINK_BUCKET, ObjectStore
from ferryline.deploy.stack.class_archives import CLIENT, JOB_MANAGER, TASK_MANAGER, ClassArchives

METRICS_PORT = "metrics.reporter.prometheus.port"
"""The setting that differs between the job manager and the task manager of one machine."""

LOG_CONFIG = """\
# one log per process: the console, which is that process's log file
rootLogger.level = INFO
rootLogger.appenderRef.console.ref = console
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d %-5p %c{1.}: %m%n
logger.pekko.name = org.apache.pekko
logger.pekko.level = WARN
logger.kafka.name = org.apache.kafka
logger.kafka.level = WARN
logger.netty.name = org.jboss.netty.channel.DefaultChannelPipeline
logger.netty.level = OFF
"""


@dataclass(frozen=True)
class FlinkSettings:
    """What differs from one cluster to the next.

    Attributes:
        host: where the job manager is.
        rest_port: port of its REST interface.
        rpc_port: port the task manager registers at.
        java_home: the Java that runs everything.
        java_options: options every Flink JVM needs, from the distribution's own configuration.
        python: the interpreter of the Python workers and of `flink run`.
        archives: the class archives that the processes use.
        slots: how many tasks run at the same time.
        scratch: a folder for temporary files, and for checkpoints if there is no object store.
        store: where checkpoints go; None keeps them in `scratch`.
    """

    host: str
    rest_port: int
    rpc_port: int
    java_home: Path
    java_options: str
    python: Path
    archives: ClassArchives
    slots: int
    scratch: Path
    store: ObjectStore | None


def render_config(settings: FlinkSettings) -> str:
    """The text of config.yaml, flat: Flink's shell scripts read some of its lines by themselves."""
    every = {
        **_addresses(settings),
        **_memory(),
        **_recovery(),
        **_checkpoints(settings),
        **_metrics(),
        "parallelism.default": 1,
        "taskmanager.numberOfTaskSlots": settings.slots,
        "io.tmp.dirs": settings.scratch,
        "env.java.home": settings.java_home,
        "env.java.opts.all": settings.java_options,
        # what goes to Python at once is an array of half a megabyte; in regions of one, each counts as huge
        "env.java.opts.taskmanager": " ".join(
            ["-XX:G1HeapRegionSize=8m", *settings.archives.options(TASK_MANAGER)]
        ),
        **_archived_job_manager(settings.archives),
        "env.java.opts.client": " ".join(client_options(settings.archives)),
        # the client ships flink-python with every job: unless the one in lib wins, its classes stay for ever
        "classloader.resolve-order": "parent-first",
        "python.executable": settings.python,
        "python.client.executable": settings.python,
    }
    return "".join(f"{name}: {value}\n" for name, value in every.items())


def client_options(archives: ClassArchives) -> list[str]:
    """The JVM options of Flink's client, beside those of every Flink JVM."""
    # it lives for seconds: compiling it well costs more than it gives
    return ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", *archives.options(CLIENT)]


def java_options_of(config: str) -> str:
    """The options every Flink JVM needs, out of the distribution's own config.yaml."""
    for line in config.splitlines():
        name, _, value = line.strip().partition(": ")
        if name in {"all", "env.java.opts.all"}:
            # the compiler is no part of a runtime image, which warns of it on every start
            return " ".join(option for option in value.split() if "=jdk.compiler/" not in option)
    return ""


def _archived_job_manager(archives: ClassArchives) -> Mapping[str, object]:
    options = archives.options(JOB_MANAGER)
    return {"env.java.opts.jobmanager": " ".join(options)} if options else {}


def _addresses(settings: FlinkSettings) -> Mapping[str, object]:
    return {
        "jobmanager.rpc.address": settings.host,
        "jobmanager.rpc.port": settings.rpc_port,
        "jobmanager.bind-host": settings.host,
        "taskmanager.host": settings.host,
        "taskmanager.bind-host": settings.host,
        "rest.address": settings.host,
        "rest.port": settings.rest_port,
        # without a bind-port, which the SQL client would take for its own
        "rest.bind-address": settings.host,
    }


def _memory() -> Mapping[str, object]:
    return {
        "jobmanager.memory.process.size": "1024m",
        "taskmanager.memory.process.size": "1408m",
        "taskmanager.memory.network.min": "64m",
        "taskmanager.memory.network.max": "64m",
        "taskmanager.memory.managed.size": "96m",
        # Python workers are processes of their own: no managed memory is set aside for them
        "python.fn-execution.memory.managed": "false",
    }


def _recovery() -> Mapping[str, object]:
    return {
        # a killed task manager refuses connections: two beats tell; the timeout is for one that hangs
        "heartbeat.interval": 1000,
        "heartbeat.timeout": 10000,
        "heartbeat.rpc-failure-threshold": 2,
        # both managers start at once: one that knocks too early is back in a second, not in ten or thirty
        "cluster.registration.error-delay": 1000,
        "cluster.registration.refused-registration-delay": 1000,
        "restart-strategy.type": "exponential-delay",
        "restart-strategy.exponential-delay.initial-backoff": "500 ms",
        "restart-strategy.exponential-delay.max-backoff": "5 s",
        "restart-strategy.exponential-delay.backoff-multiplier": 1.5,
        "restart-strategy.exponential-delay.reset-backoff-threshold": "1 min",
        "restart-strategy.exponential-delay.jitter-factor": 0.1,
    }


def _metrics() -> Mapping[str, object]:
    # the reporter is among the distribution's plugins; it listens on every interface and knows no other way
    return {
        "metrics.reporters": "prometheus",
        "metrics.reporter.prometheus.factory.class": (
            "org.apache.flink.metrics.prometheus.PrometheusReporterFactory"
        ),
    }


def _checkpoints(settings: FlinkSettings) -> Mapping[str, object]:
    root = settings.scratch.as_uri() if settings.store is None else f"s3://{FLINK_BUCKET}"
    common = {
        "execution.checkpointing.interval": "5 s",
        "execution.checkpointing.storage": "filesystem",
        "execution.checkpointing.dir": f"{root}/checkpoints",
        "execution.checkpointing.savepoint-dir": f"{root}/savepoints",
    }
    if settings.store is None:
        return common
    endpoint = {"s3.endpoint": settings.store.endpoint} if settings.store.endpoint else {}
    return {
        **common,
        **endpoint,
        "s3.path.style.access": "true",
        "s3.access-key": _quoted(settings.store.credentials.access_key),
        "s3.secret-key": _quoted(settings.store.credentials.secret_key),
    }


def _quoted(text: str) -> str:
    escaped = text.replace("'", "''")
    return f"'{escaped}'"
