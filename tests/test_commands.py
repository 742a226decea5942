"""The two commands: light help with examples that can be typed, and no text that names a command which is not there."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys

import pytest

from book_build import ROOT
from pddm_utils.__main__ import user_commands
from pddm_utils.core.command_line import Commands
from pddm_utils.publish.__main__ import maintainer_commands

PROGRAMS = {"pddm_utils": user_commands(), "pddm_utils.publish": maintainer_commands()}
HEAVY = ("torch", "matplotlib", "pandas", "nibabel", "scipy")


@pytest.mark.parametrize("commands", PROGRAMS.values(), ids=PROGRAMS)
def test_every_help_has_an_example_that_parses(commands: Commands) -> None:
    for name, parser in commands.parsers.items():
        program, example = re.fullmatch(rf"example: (.+?) ({re.escape(name)}.*)", parser.epilog).groups()
        assert program == commands.program
        assert commands.parser.parse_args(shlex.split(example)).run, name


@pytest.mark.parametrize("program", PROGRAMS)
def test_help_loads_nothing_heavy(program: str) -> None:
    code = f"import sys, {program}.__main__ as m; m.main(['--help'])"
    watch = f"import atexit, sys; atexit.register(lambda: print('loaded', set({HEAVY}) & set(sys.modules)))\n"
    run = subprocess.run([sys.executable, "-c", watch + code], capture_output=True, text=True, check=True)
    assert run.stdout.startswith(f"usage: python -m {program} ") and run.stdout.endswith("loaded set()\n")


def test_no_text_names_a_command_that_is_not_there() -> None:
    files = [ROOT / "README.md"]
    files += [path for folder in ("book", "notebooks", "pddm_utils", "weights") for path in (ROOT / folder).rglob("*")]
    named = {
        (path.name, program, command)
        for path in files
        if path.suffix in {".md", ".ipynb", ".py"} and path.is_file()
        for program, command in re.findall(r"-m (pddm_utils(?:\.publish)?)\s+([a-z][a-z-]*)", path.read_text("utf-8"))
    }
    assert len(named) > 20
    assert {found for found in named if found[2] not in PROGRAMS[found[1]].parsers} == set()


def test_the_address_is_written_or_taken_out(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr("pddm_utils.publish.address.set_address", lambda root, address: asked.append(address) or [])
    commands = PROGRAMS["pddm_utils.publish"]
    assert commands.run(["address", "https://github.com/owner/name"]) == commands.run(["address", "--remove"]) == 0
    assert asked == ["https://github.com/owner/name", None]
    with pytest.raises(SystemExit):
        commands.run(["address"])
