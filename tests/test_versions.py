"""Models and scores are keyed by settings, data and code; nothing is lost, nothing old is passed off as new."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from pddm_utils import source_code
from pddm_utils.__main__ import main
from pddm_utils.benchmark import models
from pddm_utils.benchmark.models import train_method, training_code
from pddm_utils.benchmark.origins import UNKNOWN, Origin, find_folder, other_folders, read_origin, start_origin
from pddm_utils.benchmark.run import Benchmark, run_benchmark
from pddm_utils.benchmark.units import models_needed, units_to_score
from pddm_utils.core.errors import InputError
from pddm_utils.core.settings import load_settings
from pddm_utils.data.manifest import ManifestRow
from pddm_utils.data.prepare import data_digest
from pddm_utils.source_code import code_version, imported_modules

TINY = {
    "train_subjects": 2,
    "val_subjects": 1,
    "train_steps": 2,
    "extra_seed_steps": 2,
    "checkpoint_every": 1,
    "methods": ["pca"],
    "seeds": [0],
    "lesion_kinds": ["tumour"],
    "threads": 1,
}
NOW, BEFORE = Origin(("now",), "data"), Origin(("before",), "data")


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A package of three modules in the place of ours: `a` imports `room.b`, nobody imports `c`."""
    (tmp_path / "room").mkdir()
    (tmp_path / "room" / "__init__.py").write_text("")
    monkeypatch.setattr(source_code, "_PACKAGE", tmp_path)
    monkeypatch.setattr(source_code, "_WITHOUT_EFFECT", set())
    code = {"a": "from pddm_utils.room import b\n", "room/b": "def f(x):\n    return x + 1\n", "c": "x = 1\n"}

    def version(**changes: str) -> str:
        for name, text in (code | {name.replace("_", "/"): text for name, text in changes.items()}).items():
            (tmp_path / f"{name}.py").write_text(text)
        source_code._tree.cache_clear()
        code_version.cache_clear()
        return code_version("pddm_utils.a")

    yield version
    source_code._tree.cache_clear()
    code_version.cache_clear()


def test_version_of_code_is_blind_to_comments_docstrings_and_layout(package) -> None:
    plain = package()
    same = '"""What it is."""\n\ndef f(x):\n    """Add."""\n    return (x\n            + 1)  # one\n'
    assert package(room_b=same) == plain
    assert package(c="x = 2\n") == plain
    assert package(room_b="def f(x):\n    return x + 2\n") != plain
    assert package(a="from pddm_utils.room import b\ny = b.f(1)\n") != plain


def test_version_of_code_holds_what_the_result_depends_on() -> None:
    modules = set(imported_modules("pddm_utils.methods.dae", "pddm_utils.training.loop", "pddm_utils.data.slices"))
    assert {f"pddm_utils.{name}" for name in ("methods.dae", "methods.learned", "training", "data.simulate")} <= modules
    assert not {name for name in modules if "evaluation" in name}
    assert not modules & {"pddm_utils.core.settings", "pddm_utils.core.errors"}
    assert training_code("dae") != training_code("pddpm") != models.scoring_code("pddpm")
    assert "pddm_utils.evaluation.metrics" in imported_modules("pddm_utils.benchmark.evaluate")


def test_digest_of_data_is_of_what_files_hold_and_not_of_where_they_lie(tmp_path: Path) -> None:
    rows = []
    for folder, content in (("one", b"scan"), ("two", b"scan"), ("three", b"SCAN")):
        path = tmp_path / folder / "s1.nii"
        path.parent.mkdir()
        path.write_bytes(content)
        rows.append(ManifestRow("s1", str(path), "", "", "train", "mine", "T2"))
    one, two, three = ([row] for row in rows)
    assert data_digest(one) == data_digest(two) != data_digest(three)
    assert data_digest(one) != data_digest([dataclasses.replace(rows[0], contrast="T1")]) != data_digest(one + two)


def finished(folder: Path, origin: Origin | None) -> Path:
    """A finished model, with or without a word about its origin."""
    if origin:
        start_origin(folder, origin)
    folder.mkdir(parents=True)
    (folder / "training.json").write_text("{}")
    return folder


def test_a_model_of_other_code_is_taken_only_when_told(tmp_path: Path) -> None:
    new = find_folder(tmp_path, "m-seed0-key", NOW, False)
    old = finished(find_folder(tmp_path, "m-seed0-key", BEFORE, False), BEFORE)
    finished(find_folder(tmp_path, "m-seed0-key", Origin(("before",), "others"), False), Origin(("before",), "others"))
    finished(tmp_path / "m-seed1-key-0", BEFORE)
    assert find_folder(tmp_path, "m-seed0-key", NOW, False) == new != old
    assert find_folder(tmp_path, "m-seed0-key", NOW, True) == old  # not the one of other data, nor of another seed
    assert len(other_folders(new)) == 2
    finished(new, NOW)
    assert find_folder(tmp_path, "m-seed0-key", NOW, True) == new


def test_a_model_from_before_versions_were_kept_is_usable(tmp_path: Path) -> None:
    old = finished(tmp_path / "m-seed0-key", None)
    assert read_origin(old) == Origin((UNKNOWN,), UNKNOWN)
    assert find_folder(tmp_path, "m-seed0-key", NOW, True) == old
    assert find_folder(tmp_path, "m-seed0-key", NOW, False) != old


def test_a_checkpoint_that_other_code_goes_on_with_names_both(tmp_path: Path) -> None:
    old = find_folder(tmp_path, "m-seed0-key", BEFORE, False)
    start_origin(old, BEFORE)
    old.with_name(f"{old.name}.checkpoint.safetensors").write_bytes(b"")
    assert find_folder(tmp_path, "m-seed0-key", NOW, False) != old
    assert find_folder(tmp_path, "m-seed0-key", NOW, True) == old
    for _ in range(2):
        start_origin(old, NOW)
        assert read_origin(old) == Origin(("before", "now"), "data")
    with pytest.raises(InputError, match="code before and now trained it.*--accept-code-change"):
        find_folder(tmp_path, "m-seed0-key", BEFORE, False)  # its name says before, and that is no longer true


def test_run_says_which_code_trained_its_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    made = Benchmark(load_settings("smoke", TINY), False, tmp_path / "runs", tmp_path / "results")
    with monkeypatch.context() as patch:
        patch.setattr(models, "training_code", lambda name: "before")
        train_method(made.settings, "pca", 0, made.runs, made.cache)
    (old,) = (path for path in (made.runs / "models").iterdir() if path.is_dir())
    run_benchmark(dataclasses.replace(made, accept_code_change=True))
    model = json.loads((made.results / "run.json").read_text())["models"]["pca-seed0"]
    assert (model["folder"], model["code"], model["code_of_this_run"]) == (old.name, ["before"], training_code("pca"))
    assert "trained anew" not in capsys.readouterr().err

    run_benchmark(made)
    model = json.loads((made.results / "run.json").read_text())["models"]["pca-seed0"]
    assert model["folder"] != old.name and model["code"] == [model["code_of_this_run"]] and old.is_dir()
    assert f"pca seed 0: trained anew; {old.name}" in capsys.readouterr().err


def test_units_of_a_few_seeds() -> None:
    both = {"noise_levels": ["validation", "authors"]}
    settings = load_settings("smoke", both)  # intensity, ddpm, pddpm; seeds 0 and 1
    assert models_needed(settings, [1]) == [("ddpm", 0), ("pddpm", 0), ("ddpm", 1), ("pddpm", 1)]
    assert units_to_score(settings, [1]) == [
        ("pddpm", 1, "validation"),
        ("ddpm", 1, "validation"),
        ("intensity", 0, "none"),
    ]
    assert ("pddpm", 0, "authors") in units_to_score(settings, [0, 1])


def test_data_sets_and_seeds_of_the_command_line(tmp_path: Path, capsys) -> None:
    made = Benchmark(load_settings("smoke"), False, tmp_path, tmp_path, datasets=("simulated-t2-tumour",))
    assert {row.dataset for row in made.rows if row.split == "test"} == {"simulated-t2-tumour"}
    assert {row.split for row in made.rows} == {"train", "val", "test"}
    words = ["benchmark", "--profile", "smoke", "--runs", str(tmp_path / "runs")]
    for wrong, message in [
        (["--datasets", "brats"], "no test set of profile smoke; choose among simulated-t2"),
        (["--seeds", "7"], "profile smoke has [0, 1]"),
        (["--methods", "ddpn"], "choose among intensity"),
    ]:
        assert main([*words, *wrong]) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
