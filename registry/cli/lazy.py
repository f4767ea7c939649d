"""A typer group whose commands are built when they are asked for.

Typer builds every command's parser on every start. Here a start builds the one command that is invoked, and
`--help` reads no more than names and first lines. Help is plain text: a table library would cost as much
again as all the rest of it.
"""

from __future__ import annotations

import inspect
import os
import re
import sys
from collections.abc import Mapping
from typing import Any, ClassVar

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command_from_info
from typer.models import CommandInfo

_HEADING = re.compile(r"^(Usage|[A-Z][a-z ]+)(?=:( |$))", re.MULTILINE)


class PlainCommand(TyperCommand):
    """A command whose epilog is its examples, one a line, which no line break may tear apart."""

    def get_help(self, ctx: Any) -> str:
        """The help text."""
        return _emphasised(super().get_help(ctx))

    def format_epilog(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002 - click's own signature
        """The examples."""
        if self.epilog:
            with formatter.section("Examples"):
                formatter.write("".join(f"  {line}\n" for line in inspect.cleandoc(self.epilog).splitlines()))


class LazyGroup(TyperGroup):
    """The commands of `sections`: a heading, and the commands under it."""

    sections: ClassVar[Mapping[str, typer.Typer]] = {}

    def get_help(self, ctx: Any) -> str:
        """The help text."""
        return _emphasised(super().get_help(ctx))

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - click's own signature
        """The commands' names."""
        return list(self._registered())

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002 - click's own signature
        """The command of that name, built now, None where there is none."""
        if cmd_name not in self.commands and (info := self._registered().get(cmd_name)) is not None:
            info.cls = PlainCommand
            info.context_settings = dict(self.context_settings)
            self.commands[cmd_name] = get_command_from_info(
                info, pretty_exceptions_short=False, rich_markup_mode=None
            )
        return self.commands.get(cmd_name)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """As click does; what is similar to a wrong name is found among all names."""
        if args[0] not in self._registered():
            for name in self.list_commands(ctx):
                self.get_command(ctx, name)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002 - click's own signature
        """Every section with its commands."""
        width = max(len(name) for name in self._registered())
        for heading, commands in self.sections.items():
            rows = [(_name(info).ljust(width), _summary(info)) for info in commands.registered_commands]
            if rows:
                with formatter.section(heading):
                    formatter.write_dl(rows)

    def _registered(self) -> dict[str, CommandInfo]:
        return {
            _name(info): info for commands in self.sections.values() for info in commands.registered_commands
        }


def _name(info: CommandInfo) -> str:
    return info.name or str(getattr(info.callback, "__name__", ""))


def _summary(info: CommandInfo) -> str:
    return (inspect.getdoc(info.callback) or "").partition("\n")[0]


def _emphasised(text: str) -> str:
    if not sys.stdout.isatty() or os.environ.get("NO_COLOR"):
        return text
    return _HEADING.sub("\x1b[1m\\1\x1b[0m", text)
