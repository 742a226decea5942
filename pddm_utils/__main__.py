"""Command line: `python -m pddm_utils <command> --help`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import yaml

from pddm_utils.errors import InputError
from pddm_utils.settings import TRAINED_METHODS, Settings, load_settings, profile_names


def _settings(arguments: argparse.Namespace) -> Settings:
    overrides = {}
    for item in arguments.set:
        name, equals, value = item.partition("=")
        if not equals:
            raise InputError(f"--set {item}: write NAME=VALUE, for example --set train_steps=200")
        overrides[name] = yaml.safe_load(value)
    return load_settings(arguments.profile, overrides)


def _train(arguments: argparse.Namespace) -> None:
    from pddm_utils.benchmark.models import train_method

    train_method(_settings(arguments), arguments.method, arguments.seed, Path(arguments.runs), Path(arguments.cache))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m pddm_utils", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="command")
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--profile", default="laptop", help=f"one of {', '.join(profile_names())}, or a .yaml file")
    shared.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="override one setting")
    shared.add_argument("--runs", default="runs", help="folder for models and partial results")
    shared.add_argument("--cache", default="runs/cache", help="folder for prepared scans")

    train = commands.add_parser("train", parents=[shared], help="train one model, or go on with it")
    train.add_argument("--method", choices=TRAINED_METHODS, required=True)
    train.add_argument("--seed", type=int, default=0)
    train.set_defaults(run=_train)
    return parser


def main(words: list[str] | None = None) -> int:
    """Run one command; bad input ends with one line on standard error and exit code 2."""
    arguments = _parser().parse_args(words)
    try:
        arguments.run(arguments)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
