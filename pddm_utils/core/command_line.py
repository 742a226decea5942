"""What the project's two commands share: options of a profile, an example in every help text, errors in one line."""

from __future__ import annotations

import argparse
import io
import os
import sys
import warnings
from collections.abc import Callable

import yaml

from pddm_utils.core.errors import InputError, ScanWarning
from pddm_utils.core.settings import Settings, load_settings, profile_names


class Commands:
    """The commands of one program, such as `python -m pddm_utils`.

    Args:
        program: as the user writes it.
        about: what it is for, one line.

    Attributes:
        parser: of the whole command line.
        parsers: of each command, by name.
    """

    def __init__(self, program: str, about: str) -> None:
        self.program = program
        self.parser = argparse.ArgumentParser(prog=program, description=about)
        self.parsers: dict[str, argparse.ArgumentParser] = {}
        self._subparsers = self.parser.add_subparsers(required=True, metavar="command")

    def add(
        self,
        name: str,
        run: Callable[[argparse.Namespace], None],
        purpose: str,
        example: str = "",
        parents: tuple[argparse.ArgumentParser, ...] = (),
    ) -> argparse.ArgumentParser:
        """Add a command; returns its parser, for its options.

        Args:
            name: of the command.
            run: receives its arguments.
            purpose: one line, shown in both help texts.
            example: arguments that a first user would give.
            parents: options that it shares with other commands.
        """
        parser = self._subparsers.add_parser(
            name,
            help=purpose,
            description=f"{purpose[0].upper()}{purpose[1:]}.",
            epilog=f"example: {self.program} {name} {example}".strip(),
            parents=list(parents),
        )
        parser.set_defaults(run=run)
        self.parsers[name] = parser
        return parser

    def run(self, words: list[str] | None = None) -> int:
        """Run one command.

        Warnings are printed on standard error, one line each. A character that the terminal lacks becomes `?`.

        Returns:
            The exit code: 0, done, with or without warnings; 2, bad input or an unknown option (one line on standard
            error, nothing half-written); 141, whoever read the output has gone, as the shell says of other programs.
            Any other is a fault of this program.
        """
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="replace")
        arguments = self.parser.parse_args(words)
        warnings.simplefilter("always", ScanWarning)  # also where Python was told to ignore warnings
        # No file and line of the program: the reader is a user.
        warnings.formatwarning = lambda message, *_: f"warning: {' '.join(str(message).split())}\n"
        try:
            arguments.run(arguments)
            print(end="", flush=True)
        except InputError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left in the buffer goes nowhere
            return 141
        return 0


def profile_options() -> argparse.ArgumentParser:
    """`--profile`, `--set` and `--runs`, as a parent of commands; `settings_of` reads them."""
    options = argparse.ArgumentParser(add_help=False)
    options.add_argument("--profile", default="laptop", help=f"one of {', '.join(profile_names())}, or a .yaml file")
    options.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="override one setting")
    options.add_argument("--runs", default="runs", help="folder for models and partial results")
    return options


def settings_of(arguments: argparse.Namespace) -> Settings:
    """The settings that `profile_options` ask for.

    Raises:
        InputError: an unknown profile or setting, or a value that cannot be read.
    """
    overrides = {}
    for item in arguments.set:
        name, equals, value = item.partition("=")
        if not equals:
            raise InputError(f"--set {item}: write NAME=VALUE, for example --set train_steps=200")
        try:
            overrides[name] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise InputError(f"--set {item}: the value is not valid YAML; write it as in a profile") from None
    return load_settings(arguments.profile, overrides)


def names_in(text: str) -> tuple[str, ...]:
    """Names between commas.

    Example:
        >>> names_in("ddpm, pddpm")
        ('ddpm', 'pddpm')
    """
    return tuple(name.strip() for name in text.split(",") if name.strip())
