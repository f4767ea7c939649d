"""The `ferry-server` command."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from registry.cli.edge import run_app

app = typer.Typer(rich_markup_mode="rich")

_EPILOG = """
[bold]Examples[/bold]

  ferry-server --model digits

  ferry-server --model digits --model phishing:staging --host 0.0.0.0

  FERRY_STORE='s3://models?endpoint=http://127.0.0.1:9000' ferry-server --model digits

  ferry-server --model vision --batch vision=32:500us

  curl -s 127.0.0.1:8000/v2/models/digits

  grpcurl -plaintext 127.0.0.1:8001 grpc.health.v1.Health/Check

  curl -s 127.0.0.1:8002/metrics | grep ^ferry_

Every option also has a variable FERRY_SERVER_…, such as FERRY_SERVER_PORT, and a line in the config file.
"""


@app.command(epilog=_EPILOG)
def serve(
    model: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[:CHANNEL]", help="A model to serve; repeat it for more.", show_default=False
        ),
    ] = None,
    host: Annotated[str | None, typer.Option(help="The address to listen on. [dim]127.0.0.1[/dim]")] = None,
    port: Annotated[int | None, typer.Option(help="The port for gRPC. [dim]8001[/dim]")] = None,
    http_port: Annotated[
        int | None, typer.Option(help="The port for the same protocol over HTTP. [dim]8000[/dim]")
    ] = None,
    http: Annotated[
        bool | None, typer.Option("--http/--no-http", help="Whether to speak HTTP too.", show_default=False)
    ] = None,
    metrics_port: Annotated[
        int | None, typer.Option(help="The port for Prometheus metrics over HTTP. [dim]8002[/dim]")
    ] = None,
    batch: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODEL=SIZE:DELAY",
            help="Run up to SIZE rows of a model together, and let requests wait DELAY for others; "
            "worth it for models that take a millisecond and more. [dim]none[/dim]",
            show_default=False,
        ),
    ] = None,
    model_control: Annotated[
        str | None,
        typer.Option(
            metavar="fixed|explicit",
            help="Who says which models are served: the options for good, or callers too. [dim]fixed[/dim]",
        ),
    ] = None,
    store: Annotated[
        str | None, typer.Option(help="The registry's store (FERRY_STORE).", show_default=False)
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(help="A folder for model files (FERRY_CACHE).", show_default=False)
    ] = None,
    max_message_mib: Annotated[
        int | None, typer.Option(help="The largest message, in MiB. [dim]64[/dim]")
    ] = None,
    drain_seconds: Annotated[
        float | None, typer.Option(help="How long a stop waits for requests under way. [dim]30[/dim]")
    ] = None,
    poll_seconds: Annotated[
        float | None, typer.Option(help="How often to look for a newer version. [dim]1[/dim]")
    ] = None,
    log_format: Annotated[str | None, typer.Option(help="console or json. [dim]console[/dim]")] = None,
) -> None:
    """Serve models over the Open Inference Protocol, and follow their channels while serving.

    A model that is not published yet is waited for: the server is live and not ready until it serves.
    SIGTERM and Ctrl-C let requests under way end first.
    """
    # a port in use is our one line, not gRPC's five; set it to see gRPC's own
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from grpc_server.process import serve as serve_until_stopped
    from grpc_server.settings import load_server_settings
    from registry.logs import configure_logs

    settings = load_server_settings(
        server_models=tuple(model or ()),
        server_host=host,
        server_port=port,
        server_metrics_port=metrics_port,
        server_http=http,
        server_http_port=http_port,
        server_model_control=model_control,
        server_max_message_mib=max_message_mib,
        server_drain_seconds=drain_seconds,
        server_poll_seconds=poll_seconds,
        server_log_format=log_format,
        server_batching=tuple(batch or ()),
        store=store,
        cache=cache,
    )
    settings.references()
    settings.execution()
    configure_logs(settings.server_log_format)
    asyncio.run(serve_until_stopped(settings))


def main() -> NoReturn:
    """Run as a process."""
    run_app(app, "ferry-server")


if __name__ == "__main__":
    main()
