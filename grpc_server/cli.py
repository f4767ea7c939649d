"""The `ferry-server` command."""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from ferryline.registry.cli.edge import run_app
from ferryline.registry.extras import Extra

if TYPE_CHECKING:
    from ferryline.grpc_server.settings import ServerSettings

app = typer.Typer(
    name="ferry-server",
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_EPILOG = """
[bold]Examples[/bold]

  ferry-server --model digits

  ferry-server --model digits --model phishing:staging --host 0.0.0.0

  ferry-server --model digits --model digits:staging

  ferry-server --model digits --shadow digits:staging=0.1

  ferry-server --all

  FERRY_STORE='s3://models?endpoint=http://127.0.0.1:9000' ferry-server --model digits

  ferry-server --model vision --batch vision=32:500us

  ferry-server --model digits --workers 4

  ferry-server --model digits --tls-certificate server.pem --tls-key server.key --tokens tokens.toml

  ferry-server --model digits --check-config

  curl -s 127.0.0.1:8000/v2/models/digits

  grpcurl -plaintext 127.0.0.1:8001 grpc.health.v1.Health/Check

  curl -s 127.0.0.1:8002/metrics | grep ^ferry_

Every option also has a variable FERRY_SERVER_…, such as FERRY_SERVER_PORT, and a line in the config file.
"""

_MODELS = "What to serve"
_LISTENING = "Where to listen"
_SECURITY = "Who may ask"
_RUNNING = "How requests run"
_TELLING = "What to tell"


@app.callback(invoke_without_command=True, epilog=_EPILOG)
def serve(
    context: typer.Context,
    model: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[:CHANNEL]",
            help="A model to serve, and the channel to follow; repeat it for more of both. Of a model's "
            "channels the first answers requests that name none.",
            show_default=False,
            rich_help_panel=_MODELS,
        ),
    ] = None,
    every: Annotated[
        bool | None,
        typer.Option(
            "--all",
            help="Serve every model that has the channel, new ones as they come.",
            show_default=False,
            rich_help_panel=_MODELS,
        ),
    ] = None,
    all_channel: Annotated[
        str | None,
        typer.Option(
            metavar="CHANNEL", help="The channel of --all. [dim]production[/dim]", rich_help_panel=_MODELS
        ),
    ] = None,
    optional: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[:CHANNEL]",
            help="A model without which the server is ready all the same; repeat it for more.",
            show_default=False,
            rich_help_panel=_MODELS,
        ),
    ] = None,
    model_control: Annotated[
        str | None,
        typer.Option(
            metavar="fixed|explicit",
            help="Who says which models are served: the options for good, or callers too. [dim]fixed[/dim]",
            rich_help_panel=_MODELS,
        ),
    ] = None,
    fall_back: Annotated[
        bool | None,
        typer.Option(
            "--fall-back/--no-fall-back",
            help="Whether to go back from a new version that fails or takes longer by far. [dim]no[/dim]",
            show_default=False,
            rich_help_panel=_MODELS,
        ),
    ] = None,
    shadow: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODEL:CHANNEL[=SHARE]",
            help="Let a channel's version run again what the model's first channel has answered, or a share "
            "of it, and compare; repeat it for other models. [dim]none[/dim]",
            show_default=False,
            rich_help_panel=_MODELS,
        ),
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(help="The registry's store (FERRY_STORE).", show_default=False, rich_help_panel=_MODELS),
    ] = None,
    cache: Annotated[
        Path | None,
        typer.Option(
            help="A folder for model files (FERRY_CACHE).", show_default=False, rich_help_panel=_MODELS
        ),
    ] = None,
    poll_seconds: Annotated[
        float | None,
        typer.Option(help="How often to look for a newer version. [dim]1[/dim]", rich_help_panel=_MODELS),
    ] = None,
    host: Annotated[
        str | None,
        typer.Option(help="The address to listen on. [dim]127.0.0.1[/dim]", rich_help_panel=_LISTENING),
    ] = None,
    port: Annotated[
        int | None, typer.Option(help="The port for gRPC. [dim]8001[/dim]", rich_help_panel=_LISTENING)
    ] = None,
    http_port: Annotated[
        int | None,
        typer.Option(
            help="The port for the same protocol over HTTP. [dim]8000[/dim]", rich_help_panel=_LISTENING
        ),
    ] = None,
    http: Annotated[
        bool | None,
        typer.Option(
            "--http/--no-http",
            help="Whether to speak HTTP too.",
            show_default=False,
            rich_help_panel=_LISTENING,
        ),
    ] = None,
    metrics_port: Annotated[
        int | None,
        typer.Option(
            help="The port for Prometheus metrics and health, in plain HTTP. [dim]8002[/dim]",
            rich_help_panel=_LISTENING,
        ),
    ] = None,
    metrics_host: Annotated[
        str | None,
        typer.Option(
            help="The address for them. [dim]that of --host[/dim]",
            show_default=False,
            rich_help_panel=_LISTENING,
        ),
    ] = None,
    max_message_mib: Annotated[
        int | None,
        typer.Option(help="The largest message, in MiB. [dim]64[/dim]", rich_help_panel=_LISTENING),
    ] = None,
    tls_certificate: Annotated[
        Path | None,
        typer.Option(
            metavar="PEM",
            help="Speak TLS, with this certificate and those that lead to its authority.",
            show_default=False,
            rich_help_panel=_SECURITY,
        ),
    ] = None,
    tls_key: Annotated[
        Path | None,
        typer.Option(
            metavar="PEM", help="The certificate's key.", show_default=False, rich_help_panel=_SECURITY
        ),
    ] = None,
    tls_client_ca: Annotated[
        Path | None,
        typer.Option(
            metavar="PEM",
            help="Take only callers with a certificate of one of these authorities.",
            show_default=False,
            rich_help_panel=_SECURITY,
        ),
    ] = None,
    tokens: Annotated[
        Path | None,
        typer.Option(
            metavar="TOML",
            help="Take only callers with a token of this file; [bold]ferry-server token[/bold] makes them.",
            show_default=False,
            rich_help_panel=_SECURITY,
        ),
    ] = None,
    open_health: Annotated[
        bool | None,
        typer.Option(
            "--open-health/--guarded-health",
            help="Whether health and readiness are told without a token. [dim]they are[/dim]",
            show_default=False,
            rich_help_panel=_SECURITY,
        ),
    ] = None,
    reflection: Annotated[
        bool | None,
        typer.Option(
            "--reflection/--no-reflection",
            help="Whether the server describes its RPCs; with tokens, to the right admin. [dim]it does[/dim]",
            show_default=False,
            rich_help_panel=_SECURITY,
        ),
    ] = None,
    batch: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODEL=SIZE:DELAY",
            help="Run up to SIZE rows of a model together, and let requests wait DELAY for others; "
            "worth it for models that take a millisecond and more. [dim]none[/dim]",
            show_default=False,
            rich_help_panel=_RUNNING,
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="How many processes answer on the same ports; one more then follows the registry for all. "
            "[dim]1: a single process[/dim]",
            show_default=False,
            rich_help_panel=_RUNNING,
        ),
    ] = None,
    drain_seconds: Annotated[
        float | None,
        typer.Option(
            help="How long a stop waits for requests under way. [dim]30[/dim]", rich_help_panel=_RUNNING
        ),
    ] = None,
    log_format: Annotated[
        str | None, typer.Option(help="console or json. [dim]console[/dim]", rich_help_panel=_TELLING)
    ] = None,
    access_log: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            help="Log this share of calls, from 0 to 1, and those that fail; never what they carry. "
            "[dim]0: none at all[/dim]",
            rich_help_panel=_TELLING,
        ),
    ] = None,
    traces: Annotated[
        bool | None,
        typer.Option(
            "--traces/--no-traces",
            help="Export a span for each call, as the OTEL_ variables say (extra otel). [dim]no[/dim]",
            show_default=False,
            rich_help_panel=_TELLING,
        ),
    ] = None,
    check_config: Annotated[
        bool,
        typer.Option(
            "--check-config",
            help="Look at everything a start needs, print what would be served, and end.",
            rich_help_panel=_TELLING,
        ),
    ] = False,
) -> None:
    """Serve models over the Open Inference Protocol, and follow their channels while serving.

    A model that is not published yet is waited for: the server is live and not ready until it serves.
    SIGTERM and Ctrl-C let requests under way end first; a second one does not.
    """
    if context.invoked_subcommand is not None:
        return
    # a port in use is our one line, not gRPC's five; set it to see gRPC's own
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    # NumPy carries tensors here and multiplies none, and would start a thread for each core
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    with _importing():
        from ferryline.grpc_server.settings import load_server_settings
        from ferryline.registry.logs import configure_logs

    settings = load_server_settings(
        server_models=tuple(model or ()),
        server_all=every,
        server_all_channel=all_channel,
        server_fall_back=fall_back,
        server_shadows=tuple(shadow or ()),
        server_optional_models=tuple(optional or ()),
        server_model_control=model_control,
        store=store,
        cache=cache,
        server_poll_seconds=poll_seconds,
        server_host=host,
        server_port=port,
        server_http=http,
        server_http_port=http_port,
        server_metrics_port=metrics_port,
        server_metrics_host=metrics_host,
        server_max_message_mib=max_message_mib,
        server_tls_certificate=tls_certificate,
        server_tls_key=tls_key,
        server_tls_client_ca=tls_client_ca,
        server_tokens=tokens,
        server_open_health=open_health,
        server_reflection=reflection,
        server_batching=tuple(batch or ()),
        server_workers=workers,
        server_drain_seconds=drain_seconds,
        server_log_format=log_format,
        server_access_log=access_log,
        server_traces=traces,
    )
    settings.references()
    settings.execution()
    settings.optional_models()
    settings.shadows()
    if check_config:
        with _importing():
            from ferryline.grpc_server.checking import check

        check(settings)
        return
    with _importing():
        import uvloop

        serving = _serving(settings)
    configure_logs(settings.server_log_format)
    uvloop.run(serving)


@contextlib.contextmanager
def _importing() -> Iterator[None]:
    """Do not look for garbage meanwhile: imports make none, and looking is a tenth of what they take."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _serving(settings: ServerSettings) -> Coroutine[Any, Any, None]:
    """One process that answers, or one that leads those that do; the other's parts are not even imported."""
    if settings.server_workers > 1:
        from ferryline.grpc_server.workers.supervisor import supervise

        return supervise(settings)
    from ferryline.grpc_server.process import serve as serve_until_stopped

    if settings.server_http:
        import ferryline.grpc_server.http_mirror.server  # noqa: F401 - it is needed at once
    return serve_until_stopped(settings)


_MINTING = """
[bold]Examples[/bold]

  ferry-server token web --rights infer --tokens tokens.toml

  ferry-server token deploys --rights infer,admin --not-after 90d --tokens tokens.toml

  curl -H "Authorization: Bearer $TOKEN" https://models.example:8000/v2/models/digits
"""


@app.command(epilog=_MINTING)
def token(
    name: Annotated[str, typer.Argument(help="Whose it is, for logs.", show_default=False)],
    rights: Annotated[str, typer.Option(metavar="infer,admin", help="What it allows.", show_default=False)],
    not_after: Annotated[
        str | None,
        typer.Option(metavar="SPAN", help="When it ends: 90d, 12h. [dim]never[/dim]", show_default=False),
    ] = None,
    tokens: Annotated[
        Path | None,
        typer.Option(
            metavar="TOML",
            help="The file to add it to (FERRY_SERVER_TOKENS); servers see it within seconds.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Make a token, and print it this once: the file holds only its digest.

    Without a file to add it to, what the file must say goes to standard error.
    """
    from ferryline.grpc_server.security.minting import mint
    from ferryline.grpc_server.settings import load_server_settings

    file = load_server_settings(server_tokens=tokens).server_tokens
    mint(name, rights, not_after, file)


def main() -> NoReturn:
    """Run as a process."""
    run_app(app, "ferry-server", needs=(Extra.GRPC,), linux=True)


if __name__ == "__main__":
    main()
