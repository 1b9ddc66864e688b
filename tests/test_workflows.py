"""The workflows of the public home: what they run exists here, they ask for little, and a scheduled one is heard."""

import re

import pytest
import yaml
from book_tools.project import ROOT
from commands import faults

WORKFLOWS = {path.name: path for path in sorted((ROOT / ".github" / "workflows").glob("*.yml"))}
EXPRESSION = re.compile(r"\$\{\{.*?\}\}")
MAY_WRITE = {
    "ci.yml": {},
    "colab.yml": {"chapters": {"issues"}},
    "links.yml": {"external": {"issues"}},
    "pages.yml": {"deploy": {"pages", "id-token"}, "student": {"contents"}},
}


def read(name: str) -> dict:
    workflow = yaml.safe_load(WORKFLOWS[name].read_text())
    # YAML 1.1 reads the key `on` as a truth value.
    workflow["on"] = workflow.pop(True)
    return workflow


def steps_of(workflow: dict) -> list[dict]:
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


def lines_of(workflow: dict) -> list[str]:
    scripts = [EXPRESSION.sub("VALUE", step["run"]) for step in steps_of(workflow) if "run" in step]
    return [line.strip() for script in scripts for line in script.splitlines() if line.strip()]


def test_there_is_a_workflow_for_each_need():
    assert set(WORKFLOWS) == set(MAY_WRITE)


@pytest.mark.parametrize("name", WORKFLOWS)
def test_every_command_exists_here(name):
    lines = lines_of(read(name))
    assert lines
    assert [fault for line in lines for fault in faults(line)] == []
    known = re.compile(r"(make|\.ci/run|\S*python3?|git|echo)\b")
    assert [line for line in lines if not known.match(line)] == []


def test_a_command_that_does_not_exist_is_noticed():
    assert list(faults("make no-such-target"))
    assert list(faults(".venv/bin/python -m book_tools.no_such_module"))
    assert list(faults(".venv/bin/python -m book_tools.student --no-such-option"))
    assert list(faults("python -m pytest tests/no_such_test.py"))
    assert list(faults("python -m no_such_module"))
    assert list(faults(".ci/no_such_script"))
    assert not list(faults(".venv/bin/python -m book_tools.student --publish  # comment"))


@pytest.mark.parametrize("name", WORKFLOWS)
def test_actions_are_githubs_own_and_pinned_by_major_version(name):
    for step in steps_of(read(name)):
        assert ("uses" in step) != ("run" in step)
        if "uses" in step:
            assert re.fullmatch(r"actions/[a-z-]+@v\d+", step["uses"])


@pytest.mark.parametrize("name", WORKFLOWS)
def test_permissions_are_the_least_and_nothing_runs_without_end(name):
    workflow = read(name)
    assert workflow["permissions"]["contents"] == "read"
    assert set(workflow["concurrency"]) == {"group", "cancel-in-progress"}
    assert workflow["defaults"]["run"]["shell"] == "bash"
    writes = {}
    for job_name, job in workflow["jobs"].items():
        assert 5 <= job["timeout-minutes"] <= 120
        permissions = job.get("permissions", workflow["permissions"])
        granted = {scope for scope, right in permissions.items() if right == "write"}
        if granted:
            writes[job_name] = granted
    assert writes == MAY_WRITE[name]


def test_ci_runs_the_tests_of_every_change_and_keeps_the_reports():
    workflow = read("ci.yml")
    assert set(workflow["on"]) == {"push", "pull_request"}
    assert ".ci/run" in lines_of(workflow)
    upload = next(step for step in steps_of(workflow) if step.get("uses", "").startswith("actions/upload-artifact@"))
    assert upload["if"] == "always()"
    assert upload["with"]["path"] == "_build/reports"
    cache = next(step for step in steps_of(workflow) if step.get("uses", "").startswith("actions/cache@"))
    assert cache["with"]["path"] == ".venv"
    assert {"requirements.lock", "pyproject.toml"} <= set(re.findall(r"'([^']+)'", cache["with"]["key"]))


def test_pages_are_published_only_after_the_tests_and_only_from_main():
    workflow = read("pages.yml")
    assert workflow["on"] == {"push": {"branches": ["main"]}, "workflow_dispatch": None}
    build = [step.get("run") or step["uses"].partition("@")[0] for step in workflow["jobs"]["build"]["steps"]]
    order = [build.index(step) for step in ("make test", "make book", "actions/upload-pages-artifact")]
    assert order == sorted(order)
    assert workflow["jobs"]["deploy"]["needs"] == workflow["jobs"]["student"]["needs"] == "build"


@pytest.mark.parametrize("name", [name for name in WORKFLOWS if "schedule" in read(name)["on"]])
def test_a_scheduled_workflow_opens_an_issue_when_anything_in_it_fails(name):
    workflow = read(name)
    assert "workflow_dispatch" in workflow["on"]
    for entry in workflow["on"]["schedule"]:
        assert re.fullmatch(r"\d+ \d+ \* \* [0-6]", entry["cron"]), "once a week"
    for job in workflow["jobs"].values():
        last = job["steps"][-1]
        assert last["if"] == "failure()"
        assert "-m book_tools.issue --label" in last["run"]
        assert last["env"]["GH_TOKEN"] == "${{ github.token }}"
        # The report that the issue quotes is what an earlier step writes.
        report = last["run"].split()[-1]
        assert any(report.rpartition("/")[0] in step.get("run", "") for step in job["steps"][:-1])


def test_the_two_scheduled_checks_are_colab_and_links():
    assert [name for name in WORKFLOWS if "schedule" in read(name)["on"]] == ["colab.yml", "links.yml"]


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_workflow_names_no_repository_of_its_own(name):
    source = WORKFLOWS[name].read_text()
    assert "github.com/" not in source.replace("users.noreply.github.com", "")
    assert "github.io" not in source
