"""Which model is taken: the shipped one by its name, a folder by its path, and always as its files are now."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from pddm_utils.core.errors import InputError
from pddm_utils.core.shipped import weights_folder
from pddm_utils.detection.model import load_model

NAME = "simulated-t2-pddpm"


def test_new_files_in_a_folder_are_used(tmp_path: Path) -> None:
    """Also where the copy keeps sizes and times, as `cp -p` and `rsync -t` do."""
    folder = Path(shutil.copytree(weights_folder(NAME), tmp_path / "mine"))
    first = load_model(str(folder))
    assert load_model(str(folder)).pipeline is first.pipeline
    weights = next(folder.glob("unet/*.safetensors"))
    times = weights.stat()
    content = bytearray(weights.read_bytes())
    content[-2:] = bytes(2) if any(content[-2:]) else b"\x3c\x3c"
    weights.write_bytes(content)
    os.utime(weights, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert load_model(str(folder)).pipeline is not first.pipeline
    shutil.rmtree(folder)
    shutil.copytree(weights_folder("simulated-t2-ddpm"), folder)
    other = json.loads((folder / "detection.json").read_text())
    assert load_model(str(folder)).timestep == other["timestep"] != first.timestep


def test_a_folder_of_a_shipped_models_name_is_taken_by_its_path_only(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(weights_folder("simulated-t2-ddpm"), tmp_path / NAME)
    assert load_model(NAME).folder == weights_folder(NAME)
    for path in (f"./{NAME}", str(tmp_path / NAME), tmp_path / NAME):
        assert load_model(path).folder == tmp_path / NAME
    (tmp_path / NAME).rename(tmp_path / "mine")
    assert load_model("mine").folder == tmp_path / "mine"
    monkeypatch.chdir(tmp_path / "mine")
    assert load_model(".").name == "mine"


def damaged(folder: Path, text: str) -> str:
    (folder / "detection.json").write_text(text)
    with pytest.raises(InputError) as caught:
        load_model(str(folder))
    return str(caught.value)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"timestep": "818"}, "timestep '818'"),
        ({"timestep": 1000}, "timestep 1000 is beyond the model's schedule"),
        ({"timestep": -1}, "timestep -1"),
        ({"contrast": "PD"}, "contrast 'PD'"),
        ({"thresholds": {}}, "KeyError: 'healthy-quantile-0.99'"),
        ({"thresholds": {"healthy-quantile-0.99": float("nan")}}, "nan in place of a number"),
        ({"reference": {"scans": 10, "histogram": [1.0], "quantities": {}}}, "KeyError: 'brain_ml'"),
        ({"reference": None}, "TypeError"),
    ],
)
def test_damaged_facts_are_one_clear_line(tmp_path: Path, change: dict, told: str) -> None:
    folder = Path(shutil.copytree(weights_folder(NAME), tmp_path / "mine"))
    facts = json.loads((folder / "detection.json").read_text())
    message = damaged(folder, json.dumps(facts | change))
    assert message.startswith(f"{folder / 'detection.json'}: damaged or of another program (")
    assert told in message and "; copy the model again" in message and "\n" not in message


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 100_000, "<html>", '{"contrast": "T2"}'])
def test_facts_of_another_form_are_one_clear_line(tmp_path: Path, text: str) -> None:
    folder = Path(shutil.copytree(weights_folder(NAME), tmp_path / "mine"))
    assert "damaged or of another program" in damaged(folder, text)
