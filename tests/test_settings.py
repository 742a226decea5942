"""Profiles and settings: what is refused, and with which words."""

from __future__ import annotations

import dataclasses

import pytest

from pddm_utils.core.errors import InputError
from pddm_utils.core.settings import load_settings, profile_names
from pddm_utils.methods.registry import training_key


@pytest.mark.parametrize("name", profile_names())
def test_every_profile_loads_and_carries_its_name(name: str) -> None:
    assert load_settings(name).profile == name


def test_overrides_replace_and_lists_become_tuples() -> None:
    settings = load_settings("smoke", {"seeds": [3], "learning_rate": 1})
    assert load_settings("smoke", {"learning_rate": "1e-3"}).learning_rate == 0.001  # YAML reads 1e-3 as text
    assert settings.seeds == (3,) and settings.learning_rate == 1.0 and isinstance(settings.learning_rate, float)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"train_step": 3}, "unknown setting train_step"),
        ({"train_steps": "3"}, "train_steps='3'; it must be of type int"),
        ({"train_steps": True}, "must be of type int"),
        ({"train_steps": 0}, "train_steps=0; it must be positive"),
        ({"noise": "perlin"}, "noise='perlin'; choose one of gaussian, simplex"),
        ({"timesteps": [1000]}, r"every index must be in 0\.\.999"),
        ({"ema_decay": 1.0}, "ema_decay must be in"),
        ({"lesion_kinds": ["tumor"]}, "choose among tumour, ms"),
        ({"seeds": []}, "seeds=.*; give at least one, each once"),
        ({"timesteps": [499, 499]}, "give at least one, each once"),
        ({"cohort": "ixi"}, "the IXI scans at hand are T1"),
        ({"extra_test_sets": ["mslub-t1"]}, "'mslub-t1' is not T2"),
        ({"noise_levels": ["authors"]}, "use validation"),
    ],
)
def test_bad_settings_are_refused_by_name(overrides: dict, words: str) -> None:
    with pytest.raises(InputError, match=words):
        load_settings("smoke", overrides)


def test_a_mistyped_profile_names_the_ones_that_exist() -> None:
    with pytest.raises(InputError, match="'labtop' does not exist; choose one of .*laptop"):
        load_settings("labtop")


def test_a_profile_file_can_extend_another(tmp_path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("extends: smoke\ntrain_steps: 7\n")
    assert load_settings(str(path)).train_steps == 7
    path.write_text("extends: smoke\n train_steps: 7\n")
    with pytest.raises(InputError, match="mine.yaml: not valid YAML"):
        load_settings(str(path))


def test_settings_are_frozen_and_keys_follow_what_training_depends_on() -> None:
    settings = load_settings("smoke")
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.noise = "simplex"
    same = load_settings("smoke", {"test_subjects": 9})
    other = load_settings("smoke", {"noise": "simplex"})
    assert training_key(settings, "ddpm", 0) == training_key(same, "ddpm", 0)
    assert (
        len(
            {
                training_key(settings, "ddpm", 0),
                training_key(other, "ddpm", 0),
                training_key(settings, "ddpm", 1),
                training_key(settings, "pddpm", 0),
            }
        )
        == 4
    )


@pytest.mark.parametrize("profile", [3, None, ["smoke"]])
def test_a_profile_that_is_no_text_is_refused(profile: object) -> None:
    with pytest.raises(InputError, match="is no text; choose one of"):
        load_settings(profile)  # as papermill hands it over: -p profile 3
