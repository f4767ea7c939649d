"""`python -m ferryline.deploy.access render | grant`: policies for any S3 service, and users on a MinIO."""

from __future__ import annotations

import os
import sys
from typing import Annotated, NoReturn

import orjson
import typer

from ferryline.deploy.access.location import Location
from ferryline.deploy.access.policies import Policy, Service, render
from ferryline.deploy.stack.addresses import Addresses, Credentials
from ferryline.registry.cli.edge import run_app
from ferryline.registry.roles import Role
from ferryline.registry.settings import load_settings

app = typer.Typer(
    name="ferryline.deploy.access",
    help="Least privilege: who may do what in a registry's bucket.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

RoleArgument = Annotated[Role, typer.Argument(help="Who it is for.")]
StoreOption = Annotated[
    str | None, typer.Option("--store", metavar="URL", envvar="FERRY_STORE", help="The registry.")
]
ConsumerOption = Annotated[
    str | None,
    typer.Option(
        "--consumer", metavar="ID", help="A consumer's id as `ferry status` shows it; 'grpc-web1-*' for all."
    ),
]
ModelOption = Annotated[
    str | None, typer.Option("--model", help="The one model a trainer may add to.", show_default="any")
]
RefusalsOption = Annotated[
    bool, typer.Option("--record-refusals", help="Let a consumer write to the ledger of refusals too.")
]

PipelineOption = Annotated[
    str | None,
    typer.Option("--pipeline", metavar="NAME", help="The pipeline whose timelines a scoring job keeps."),
]


def main() -> NoReturn:
    """The process."""
    run_app(app, "python -m ferryline.deploy.access")


@app.command(
    "render",
    epilog="Example: `python -m ferryline.deploy.access render trainer --model digits --service aws`",
)
def render_(
    role: RoleArgument,
    store: StoreOption = None,
    consumer: ConsumerOption = None,
    model: ModelOption = None,
    record_refusals: RefusalsOption = False,
    pipeline: PipelineOption = None,
    service: Annotated[
        Service, typer.Option(help="Whose dialect; only Amazon's can forbid overwriting.")
    ] = Service.MINIO,
) -> None:
    """Print a policy as JSON, to be attached to a user by the tools of the service."""
    location = Location.of(load_settings(store=store).store)
    policy = render(
        role,
        location,
        service=service,
        model=model,
        consumer=consumer,
        record_refusals=record_refusals,
        pipeline=pipeline,
    )
    sys.stdout.write(_text(policy))


@app.command(
    "grant",
    epilog="Example: "
    "`eval \"$(python -m ferryline.deploy.access grant consumer web1 --consumer 'grpc-web1-*')\"`",
)
def grant_(
    role: RoleArgument,
    user: Annotated[str, typer.Argument(help="The user's name, its access key.")],
    store: StoreOption = None,
    consumer: ConsumerOption = None,
    model: ModelOption = None,
    record_refusals: RefusalsOption = False,
    pipeline: PipelineOption = None,
) -> None:
    """Make a user on a MinIO, with a new secret; prints its credentials as lines for a shell.

    AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are those of an administrator.
    """
    from ferryline.deploy.access.granting import grant

    url = load_settings(store=store).store
    location = Location.of(url)
    policy = render(
        role,
        location,
        model=model,
        consumer=consumer,
        record_refusals=record_refusals,
        pipeline=pipeline,
    )
    made = grant(location, Credentials.from_environ(os.environ), user, policy)
    own = Addresses(store=url, access_key=made.credentials.access_key, secret_key=made.credentials.secret_key)
    sys.stdout.write(own.exports())


def _text(policy: Policy) -> str:
    return orjson.dumps(policy, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE).decode()
