"""Files and folders appear whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from pddm_utils.core.errors import InputError
from pddm_utils.core.files import replace_folder, user_path, whole_file, whole_files, write_text


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "map.nii.gz"
    write_text(path, "old")
    with whole_file(path) as temporary:
        assert temporary.parent == tmp_path and temporary.name.endswith(".nii.gz")
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_after_an_error_the_old_file_is_there_and_nothing_else(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "scores.csv"
    write_text(path, "old")
    with pytest.raises(error), whole_file(path) as temporary:
        temporary.write_text("half")
        raise error
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_folder_takes_the_place_of_another(tmp_path: Path) -> None:
    for name in ("new", "model"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "weights").write_text(name)
    replace_folder(tmp_path / "new", tmp_path / "model")
    assert (tmp_path / "model" / "weights").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_failure_leaves_no_new_folders_and_a_success_keeps_what_was_there(tmp_path: Path) -> None:
    with pytest.raises(ValueError), whole_files(tmp_path / "deep" / "er") as scratch:
        (scratch / "map").write_text("half")
        raise ValueError
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter").write_text("mine")
    with whole_files(tmp_path / "home") as scratch:
        (scratch / "map").write_text("whole")
    assert sorted(path.name for path in (tmp_path / "home").iterdir()) == ["letter", "map"]


@pytest.mark.parametrize("folder", ["/dev/null/found", "/proc/none/found", "a" * 300])
def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path, folder: str) -> None:
    with pytest.raises(InputError, match="cannot write there .*; make room or choose another folder"):
        with whole_files(tmp_path / folder):
            pass
    assert list(tmp_path.iterdir()) == []


def test_a_home_folder_of_nobody_is_a_name_like_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/house/of/me")
    assert user_path("~/found") == Path("/house/of/me/found")
    assert user_path("~nobody-of-that-name/found") == Path("~nobody-of-that-name/found")
