"""The workflows for a public repository: readable, complete, and calling what is there."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import jsonschema
import pytest
import yaml

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
STEP = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "id": {"type": "string"},
        "if": {"type": "string"},
        "env": {"type": "object"},
        "uses": {"type": "string", "pattern": r"^[\w.-]+/[\w./-]+@v\d+$"},
        "with": {"type": "object"},
        "run": {"type": "string", "minLength": 1},
    },
    "additionalProperties": False,
    "oneOf": [{"required": ["uses"]}, {"required": ["run"], "not": {"required": ["with"]}}],
}
JOB = {
    "type": "object",
    "properties": {
        "runs-on": {"const": "ubuntu-latest"},
        "timeout-minutes": {"type": "integer", "minimum": 1, "maximum": 360},
        "needs": {"type": ["string", "array"]},
        "env": {"type": "object"},
        "permissions": {"type": "object"},
        "environment": {"type": "object"},
        "steps": {"type": "array", "items": STEP, "minItems": 1},
    },
    "required": ["runs-on", "timeout-minutes", "steps"],
    "additionalProperties": False,
}
WORKFLOW = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "permissions": {"type": "object"},
        "concurrency": {"type": "object"},
        "on": {
            "type": "object",
            "minProperties": 1,
            "additionalProperties": False,
            "properties": {
                "push": {"type": "object"},
                "pull_request": {},
                "workflow_dispatch": {},
                "schedule": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "required": ["cron"],
                        "properties": {"cron": {"type": "string", "pattern": r"^(\S+ ){4}\S+$"}},
                    },
                },
            },
        },
        "jobs": {"type": "object", "minProperties": 1, "additionalProperties": JOB},
    },
    "required": ["name", "on", "permissions", "jobs"],
    "additionalProperties": False,
}


def read(path: Path) -> dict:
    """A workflow; YAML 1.1 takes the key `on` for a truth value."""
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    return {"on" if key is True else key: value for key, value in content.items()}


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflow_has_the_form_that_github_reads(path: Path) -> None:
    workflow = read(path)
    jsonschema.validate(workflow, WORKFLOW)
    for job in workflow["jobs"].values():
        needed = job.get("needs", [])
        assert set([needed] if isinstance(needed, str) else needed) <= set(workflow["jobs"])


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_what_a_workflow_runs_is_there(path: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    commands = [step["run"] for job in read(path)["jobs"].values() for step in job["steps"] if "run" in step]
    for command in commands:
        assert subprocess.run(["bash", "-n", "-c", command], check=False).returncode == 0, command
        assert set(re.findall(r"\bmake ([a-z-]+)", command)) <= targets, command
        assert all((ROOT / script).is_file() for script in re.findall(r"\bbash (\S+)", command)), command


def test_tests_deployment_full_run_and_links_all_have_one() -> None:
    runs = {
        path.stem: [step.get("run", step.get("uses")) for job in read(path)["jobs"].values() for step in job["steps"]]
        for path in WORKFLOWS
    }
    assert "bash .ci/run" in runs["test"] and "make book" in runs["book"]
    assert any(used.startswith("actions/deploy-pages@") for used in runs["book"])
    fetched = next(place for place, command in enumerate(runs["book"]) if "pddm_utils fetch soop" in command)
    assert fetched < runs["book"].index("make book"), "the page Play of the public site has slices of patients"
    assert {"make test-full", "make test-processors", "make linkcheck"} <= set(runs["weekly"])
    assert "schedule" in read(WORKFLOWS[-1])["on"]
