"""The command line of the local stack: `ferry-stack install | up | down | status | logs | …`."""

import signal
import subprocess
import sys
from typing import Annotated

import typer

from ferryline.deploy.stack.archive_recorder import record_archives
from ferryline.deploy.stack.catalog import PARTS, PROCESSES, processes_called
from ferryline.deploy.stack.cli_output import (
    console,
    follow,
    narrated,
    print_status,
    show_addresses,
    show_last_words,
    show_status,
)
from ferryline.deploy.stack.errors import PartFailedError, StackError, StackUsageError
from ferryline.deploy.stack.local import LocalStack
from ferryline.deploy.stack.process import tail
from ferryline.registry.cli.formats import OutputFormat

app = typer.Typer(
    name="ferry-stack",
    help="A real Kafka, MinIO and Flink on this machine, without Docker.",
    epilog="FERRY_STACK_HOME moves the stack's data, FERRY_CACHE its downloads. FERRY_KAFKA, FERRY_STORE and "
    "FERRY_FLINK name parts that run elsewhere.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


Parts = Annotated[str, typer.Option("--only", help=f"Which parts: {', '.join(PARTS)}, with commas between.")]
ALL_PARTS = ",".join(PARTS)
Port = Annotated[int | None, typer.Option(min=1, max=65535, show_default="its usual or a free one")]


@app.command(epilog="Examples: `ferry-stack install` · `ferry-stack install --only minio`")
def install(only: Parts = ALL_PARTS) -> None:
    """Fetch and build what the parts need, and leave nothing running.

    That takes minutes once; `ferry-stack up` then needs no network. With all parts, they run once for a
    minute, and archives of the classes that Java loaded make Kafka, Flink and `flink run` start faster.
    """
    with narrated("installing") as progress:
        stack = LocalStack()
        stack.install(_names(only), progress=progress)
        if set(_names(only)) == set(PARTS):
            record_archives(stack, progress=progress)
    console.print("installed")


@app.command(
    epilog="Examples: `ferry-stack up` · `ferry-stack up --only kafka,minio` · "
    "`ferry-stack up --kafka-port 19092` · `ferry-stack up --flink-slots 4`"
)
def up(
    only: Parts = ALL_PARTS,
    kafka_port: Port = None,
    minio_port: Port = None,
    flink_port: Port = None,
    flink_slots: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=64,
            show_default="as last time, at first 2",
            help="How many task slots a Flink that starts has; each job takes as many as its parallelism.",
        ),
    ] = None,
) -> None:
    """Start what does not run yet, and print the addresses when everything answers.

    The first run fetches Kafka and builds MinIO, which takes minutes; later runs take seconds.
    """
    asked = {"kafka": kafka_port, "minio": minio_port, "flink": flink_port}
    ports = {part: port for part, port in asked.items() if port is not None}
    try:
        with narrated("starting") as progress:
            addresses = LocalStack().up(_names(only), ports=ports, flink_slots=flink_slots, progress=progress)
    except PartFailedError as error:
        show_last_words(error)
        raise
    show_addresses(addresses)


@app.command(epilog="Examples: `ferry-stack down` · `ferry-stack down --wipe`")
def down(
    *,
    wipe: Annotated[bool, typer.Option("--wipe", help="Delete topics, buckets and logs too.")] = False,
) -> None:
    """Stop exactly what `up` started; data stays unless it is wiped."""
    with narrated("stopping") as progress:
        LocalStack().down(wipe=wipe, progress=progress)
    console.print("stopped" + (" and wiped" if wipe else ""))


@app.command(epilog="Examples: `ferry-stack status` · `ferry-stack status -o json`")
def status(
    output: Annotated[
        OutputFormat, typer.Option("--output", "-o", help="For people or for scripts.")
    ] = OutputFormat.TABLE,
) -> None:
    """Ask every part how it is; exit with 6 if one that should run does not answer."""
    stack = LocalStack()
    rows = stack.status()
    if output is OutputFormat.JSON:
        print_status(stack.home.root, rows)
    else:
        show_status(rows)
    faulty = [row.name for row in rows if row.is_faulty]
    if faulty:
        raise StackError(
            f"{', '.join(faulty)} should run and does not answer: see its log, then `ferry-stack up`"
        )


@app.command(
    epilog="Examples: `ferry-stack logs` · `ferry-stack logs taskmanager -f` · "
    "`ferry-stack logs kafka -n 200`"
)
def logs(
    part: Annotated[
        str, typer.Argument(help=f"One of {', '.join(dict.fromkeys((*PARTS, *PROCESSES)))}; all if left out.")
    ] = "",
    *,
    following: Annotated[bool, typer.Option("--follow", "-f", help="Keep printing what is added.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="How many of the last lines.")] = 20,
) -> None:
    """Print the last lines of the servers' logs."""
    home = LocalStack().home
    files = [home.log_of(name) for name in (processes_called(part) if part else PROCESSES)]
    found = [file for file in files if file.exists()]
    if not found:
        raise StackUsageError(f"no logs in {home.logs}: nothing was started here; see `ferry-stack up`")
    for file in found:
        if len(found) > 1:
            console.print(f"[dim]{file}[/dim]", soft_wrap=True)
        text = tail(file, lines) if lines else ""
        sys.stdout.write(f"{text}\n" if text else "")
        sys.stdout.flush()
    if following:
        follow(found)


@app.command(epilog='Example: `eval "$(ferry-stack env)"`')
def env() -> None:
    """Print the addresses as exports for a shell, on standard output."""
    exports = LocalStack().addresses().exports()
    if not exports:
        raise StackUsageError("nothing runs here: start it with `ferry-stack up`")
    sys.stdout.write(exports)


@app.command(
    "flink",
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    epilog="Examples: `ferry-stack flink list` · `ferry-stack flink run -d -pyfs job.zip -pym job`",
)
def run_flink(context: typer.Context) -> None:
    """Run Flink's own command line against this stack's cluster; everything after `flink` is passed on."""
    command, environ = LocalStack().flink_command(*context.args)
    raise typer.Exit(subprocess.run(command, env=environ, check=False).returncode)


@app.command(
    "sql",
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    epilog="Examples: `ferry-stack sql --functions functions.toml` · "
    '`ferry-stack sql --functions functions.toml -e "SELECT Predict(a, b) FROM t"`',
)
def run_sql(context: typer.Context) -> None:
    """Run `ferry-sql` against this stack's cluster; everything after `sql` is passed on."""
    _, environ = LocalStack().flink_command()
    command = [sys.executable, "-m", "ferryline.flink_scoring.sql.cli", *context.args]
    signal.signal(signal.SIGINT, lambda *_: None)  # Ctrl-C is for the client to answer
    raise typer.Exit(subprocess.run(command, env=environ, check=False).returncode)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]
