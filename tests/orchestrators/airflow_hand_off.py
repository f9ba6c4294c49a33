"""The Airflow example and its helper in real runs: `airflow_hand_off.py path/to/forbear`.

The helper is held against every refusal that there is, and a task that is refused gives its place away until the
time that was named. The runs are those of `airflow dags test`, which runs one task at a time.
"""

import json
import logging
import os
import shutil
import sys
import tempfile
import urllib.request
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace

HERE = Path(__file__).resolve().parent
EXAMPLE = HERE.parents[1] / "deploy/examples/airflow"
FORBEAR = Path(sys.argv[1]).resolve()
HOME = tempfile.TemporaryDirectory()
DAGS = Path(HOME.name) / "dags"
DAGS.mkdir()
for source in (EXAMPLE / "forbear_airflow.py", EXAMPLE / "issues.py", HERE / "hand_off.py"):
    shutil.copy(source, DAGS)
sys.path[:0] = [str(DAGS), str(HERE), str(HERE.parent / "clients"), str(HERE.parent / "deploy")]
# Airflow reads them as soon as it is imported.
os.environ.update(
    AIRFLOW_HOME=HOME.name,
    AIRFLOW__CORE__DAGS_FOLDER=str(DAGS),
    AIRFLOW__CORE__LOAD_EXAMPLES="False",
    AIRFLOW__LOGGING__LOGGING_LEVEL="ERROR",
)

import api as upstream  # noqa: E402
import refusals  # noqa: E402
import report  # noqa: E402
import requests  # noqa: E402
from airflow.sdk.exceptions import AirflowFailException, AirflowRescheduleException  # noqa: E402
from airflow.utils.db import initdb  # noqa: E402
from forbear_airflow import RESCHEDULES_MAX, checked, headers  # noqa: E402

import sidecar  # noqa: E402

CONFIGURATION = """
[proxy]
listen = "127.0.0.1:0"
[admin]
listen = "127.0.0.1:0"
[defaults]
ca_file = "ca.pem"
[upstreams.impatient]
url = "{url}"
max_wait = "2s"
[upstreams.github]
url = "{url}/vendors/github"
profile = "github"
"""
CLOSED = "/closed/8/airflow"
# How much later than named the task may start again.
LATE_MAX = 2


def check_case(case: refusals.Case) -> None:
    before = datetime.now(timezone.utc)
    try:
        checked(case.response, {})
    except AirflowRescheduleException as reschedule:
        # A moment that was named runs on while the test does.
        wait = (reschedule.reschedule_date - before).total_seconds()
        assert case.wait is not None and case.wait - 1 <= wait <= case.wait + 1, wait
    except AirflowFailException as failure:
        assert case.wait is None and "forbear explain" in str(failure), failure
    else:
        raise AssertionError("it passed for a success")


def check_others() -> None:
    good = refusals.response(200, {}, {})
    assert checked(good, {}) is good, "a success passes"
    try:
        checked(refusals.response(500, {}, {}), {})
    except requests.HTTPError:
        pass
    else:
        raise AssertionError("a failure without forbear in between is what it was")
    refused = refusals.refused("cooldown", 429, "throttled", retry_after_ms=1)
    for count, expected in ((RESCHEDULES_MAX - 1, AirflowRescheduleException), (RESCHEDULES_MAX, AirflowFailException)):
        try:
            checked(refused, {"task_reschedule_count": count})
        except expected:
            continue
        raise AssertionError(f"no {expected.__name__} after {count} reschedules")


def check_headers() -> None:
    for run_type, run_id, flow in (
        ("manual", "mine, \"at\" noon", "d/mine%2C%20%22at%22%20noon"),
        ("scheduled", "scheduled__2026-11-21T00:00:00+00:00", "d/scheduled__2026-11-21T00:00:00+00:00"),
        ("backfill", "backfill__2026-11-21T00:00:00+00:00", "d/backfill"),
    ):
        said = headers({"dag_run": SimpleNamespace(dag_id="d", run_id=run_id, run_type=run_type)})
        assert said["Forbear-Flow"] == flow and said["Forbear-Run"].startswith("d/"), said


def check_place(api: upstream.Api, forbear: sidecar.Forbear) -> str:
    import hand_off

    run = hand_off.hand_off().test()
    tasks = {task.task_id: task for task in run.get_task_instances()}
    assert run.state == "success" and tasks["refused"].try_number == 1, tasks
    first, *later = api.times(CLOSED)
    told = first + int(CLOSED.split("/")[2])
    again = tasks["refused"].start_date.timestamp()
    assert told <= again <= told + LATE_MAX, f"again {again - told:.2f} s after the time that was named"
    assert len(later) == 1 and later[0] >= told, "the API was asked once more, and not earlier than it said"
    assert first < tasks["other"].start_date.timestamp() < again, "the place was not free"
    with urllib.request.urlopen(f"{forbear.admin}/api/v1/exchanges?last=9&upstream=impatient") as answer:
        stories = json.load(answer)
    assert f"hand_off/{run.run_id}" in json.dumps(stories), "the ledger knows the run"
    return f"again {again - told:.2f} s after the time that was named"


def check_example(_: upstream.Api, forbear: sidecar.Forbear) -> None:
    import issues

    run = issues.open_issues().test(logical_date=datetime.now(timezone.utc) - timedelta(days=1))
    assert run.state == "success", [(task.task_id, task.state) for task in run.get_task_instances()]
    found = [task.xcom_pull(task_ids="issues", map_indexes=task.map_index) for task in run.get_task_instances()]
    assert found == [103, 103, 103], found
    answers = forbear.counted("forbear_requests_total", "github")
    attempts = forbear.counted("forbear_upstream_attempts_total", "github")
    assert set(answers) == {"200"} and attempts["429"] > 0, f"{answers} of {attempts}"


def main() -> int:
    for case in refusals.cases():
        report.check(f"Airflow: {case.name}", lambda case=case: check_case(case))
    report.check("Airflow: a success passes, what came without forbear, too, and patience has an end", check_others)
    report.check("Airflow: a run's id is sent in a form that forbear takes, and a backfill is one flow", check_headers)
    logging.disable(logging.WARNING)
    initdb()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        upstream.make_certificates(folder)
        api = upstream.Api(folder)
        forbear = sidecar.Forbear(FORBEAR, folder, CONFIGURATION.format(url=api.url))
        os.environ["FORBEAR_URL"] = forbear.proxy
        try:
            for title, test in (
                ("the example does its work through a refusal", check_example),
                ("a refused task starts again as named, and gives its place away until then", check_place),
            ):
                report.check(f"Airflow: {title}", lambda test=test: test(api, forbear))
        finally:
            forbear.close()
            api.close()
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
