"""The package keeps its shape: rooms import downwards, names mean one thing, files and functions stay short."""

from __future__ import annotations

from pathlib import Path

import pytest

from rooms import PACKAGE, against_the_order, homonyms, modules, room_of, too_long


def test_the_root_holds_folders_and_two_files() -> None:
    assert {str(path) for path in modules() if not room_of(path)} == {"__init__.py", "__main__.py"}


def test_rooms_import_only_rooms_before_their_own() -> None:
    assert against_the_order() == []


def test_no_two_files_share_a_name() -> None:
    assert homonyms() == {}


def test_files_and_functions_are_short() -> None:
    assert too_long() == []


@pytest.mark.parametrize(
    ("path", "text", "found"),
    [
        ("core/a.py", "from pddm_utils.data.scan import Scan\n", ["core/a.py imports data"]),
        ("core/a.py", "def f():\n    import pddm_utils.benchmark.run\n", ["core/a.py imports benchmark"]),
        ("data/a.py", "from pddm_utils.core.errors import InputError\nfrom pddm_utils.data import b\n", []),
        ("__init__.py", "from pddm_utils import publish\n", []),
    ],
)
def test_an_import_against_the_order_is_seen(tmp_path: Path, path: str, text: str, found: list[str]) -> None:
    file = tmp_path / PACKAGE / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    assert against_the_order(tmp_path) == found
