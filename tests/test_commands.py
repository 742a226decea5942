"""The two commands: light help with examples that can be typed, and no text that names a command which is not there."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys

import pytest

from book_build import ROOT
from pddm_utils.__main__ import user_commands
from pddm_utils.benchmark.studies.ablations import NAMES
from pddm_utils.benchmark.studies.trained import TRAINED_QUESTIONS
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


def test_questions_in_examples_exist() -> None:
    for command, known in (("ablations", NAMES), ("trained-ablations", TRAINED_QUESTIONS)):
        words = shlex.split(PROGRAMS["pddm_utils"].parsers[command].epilog)
        assert set(words[words.index("--questions") + 1 :]) <= set(known)


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


def run_code(code: str, **options) -> subprocess.CompletedProcess[str]:
    """Run `code` as the only command, named `say`, of a program."""
    program = (
        "import sys, warnings\n"
        "from pddm_utils.core.command_line import Commands\n"
        "commands = Commands('program', 'Says something.')\n"
        f"commands.add('say', lambda _: [{code}], 'say something')\n"
        "sys.exit(commands.run(['say']))\n"
    )
    return subprocess.run([sys.executable, "-c", program], text=True, stderr=subprocess.PIPE, **options)


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1"])
def test_a_terminal_that_lacks_a_character_costs_nothing_else(encoding: str) -> None:
    said = run_code(
        "print('results in Müller \u2192 脳')",
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONIOENCODING": encoding},
        encoding=encoding,
    )
    assert (said.returncode, said.stderr) == (0, "")
    assert said.stdout.startswith("results in M") and said.stdout.endswith(" ? ?\n")


def test_a_reader_that_goes_away_ends_a_command_without_a_traceback() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    said = run_code("print('x' * 1_000_000)", stdout=writing)
    os.close(writing)
    assert (said.returncode, said.stderr) == (141, "")


def test_warnings_of_scans_are_said_also_where_python_ignores_warnings() -> None:
    code = "warnings.warn('scan.nii.gz: mirrored', __import__('pddm_utils.core.errors').core.errors.ScanWarning)"
    said = run_code(code, env={**os.environ, "PYTHONWARNINGS": "ignore"})
    assert said.stderr == "warning: scan.nii.gz: mirrored\n"


def test_without_a_terminal_nothing_is_said_and_the_work_is_done(tmp_path) -> None:
    done = tmp_path / "done"
    code = f"print('x'), open({str(done)!r}, 'w').close()"
    said = run_code(code, preexec_fn=lambda: os.close(1))
    assert (said.returncode, said.stderr, done.exists()) == (0, "", True)


def test_a_warning_is_one_line_and_no_failure() -> None:
    said = run_code("warnings.warn('scan.nii.gz: in two\\n  lines'), print('done')", stdout=subprocess.PIPE)
    assert (said.returncode, said.stdout, said.stderr) == (0, "done\n", "warning: scan.nii.gz: in two lines\n")
