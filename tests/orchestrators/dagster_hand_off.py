"""The Dagster example and its helper in real runs: `dagster_hand_off.py path/to/forbear`.

The helper is held against every refusal that there is; a job of 200 requests ends without a failed step; and a
step that is refused gives its place away until the time that was named.
"""

import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

HERE = Path(__file__).resolve().parent
EXAMPLES = HERE.parents[1] / "deploy/examples"
sys.path[:0] = [str(HERE.parent / "clients"), str(HERE.parent / "deploy"), str(EXAMPLES / "bluesky")]
import api as upstream  # noqa: E402
import dagster as dg  # noqa: E402
import jobs  # noqa: E402
import refusals  # noqa: E402
import report  # noqa: E402
import requests  # noqa: E402
from dagster._core.events import DagsterEventType as Event  # noqa: E402
from definitions import defs, issues  # noqa: E402
from feeds import Bluesky, accounts, feed  # noqa: E402
from forbear_dagster import RETRIES_MAX, checked  # noqa: E402

import sidecar  # noqa: E402

FORBEAR = Path(sys.argv[1]).resolve()
CONFIGURATION = """
[proxy]
listen = "127.0.0.1:0"
[admin]
listen = "127.0.0.1:0"
[defaults]
ca_file = "ca.pem"
[upstreams.api]
url = "{url}"
[upstreams.impatient]
url = "{url}"
max_wait = "2s"
[upstreams.github]
url = "{url}/vendors/github"
profile = "github"
[upstreams.bluesky]
url = "{url}/vendors/moving"
profile = "bluesky"
[upstreams.dead]
url = "http://127.0.0.1:9"
retry.attempts_max = 1
"""
CLOSED = "/closed/12/dagster"
# How much later than named the step may start again.
LATE_MAX = 2


def check_case(case: refusals.Case) -> None:
    try:
        checked(case.response)
    except dg.RetryRequested as retry:
        # A moment that was named runs on while the test does.
        assert case.wait is not None and case.wait - 1 <= retry.seconds_to_wait <= case.wait, retry.seconds_to_wait
        assert retry.max_retries == RETRIES_MAX and retry.__cause__.description, retry
    except dg.Failure as failure:
        assert case.wait is None and failure.allow_retries is False and failure.description, failure
    else:
        raise AssertionError("it passed for a success")


def check_others() -> None:
    good = refusals.response(200, {}, {})
    assert checked(good) is good, "a success passes"
    try:
        checked(refusals.response(500, {}, {}))
    except requests.HTTPError:
        return
    raise AssertionError("a failure without forbear in between is what it was")


def check_backfill() -> None:
    for tags in ({}, {"dagster/backfill": "last-year"}):
        result = jobs.said.execute_in_process(tags=tags, run_config=jobs.QUIET)
        flow = tags.get("dagster/backfill", result.run_id)
        said = result.output_for_node("saying")
        assert said == {"Forbear-Run": result.run_id, "Forbear-Flow": flow}, said


def check_many(api: upstream.Api, forbear: sidecar.Forbear) -> str:
    resources = {"api": jobs.Api(base_url=f"{forbear.proxy}/api")}
    began = time.monotonic()
    result = jobs.many.execute_in_process(resources=resources, run_config=jobs.QUIET)
    spoiled = [e for e in result.all_events if e.event_type in (Event.STEP_FAILURE, Event.STEP_UP_FOR_RETRY)]
    assert result.success and not spoiled, spoiled
    counts = [result.output_for_node(f"fetch_{number}") for number in range(jobs.OPS)]
    assert sum(counts) == jobs.OPS * jobs.REQUESTS == 200, counts
    answers = forbear.counted("forbear_requests_total", "api")
    assert answers == {"200": 200}, answers
    with urllib.request.urlopen(f"{forbear.admin}/api/v1/exchanges?last=500&run={result.run_id}") as answer:
        assert result.run_id in answer.read().decode(), "the ledger knows the run"
    took = time.monotonic() - began
    # Four windows were needed, the first of which may have been nearly over.
    assert took > 2 * upstream.WINDOW, f"{took:.1f} s: the API did not limit anything"
    return f"{took:.1f} s; the API refused {api.requests('refused by the window')} of them, and no step saw it"


def check_place(api: upstream.Api, forbear: sidecar.Forbear, folder: Path) -> str:
    # The API closes, and forbear learns of it, before the job begins.
    first = requests.get(f"{forbear.proxy}/impatient{CLOSED}", timeout=20)
    assert first.status_code == 429, first
    os.environ["API_URL"] = f"{forbear.proxy}/impatient"
    with dg.DagsterInstance.local_temp(str(folder), {"telemetry": {"enabled": False}}) as instance:
        result = dg.execute_job(dg.reconstructable(jobs.shared_place), instance=instance, run_config=jobs.QUIET)
        run = result.run_id
        entries = [(e.timestamp, e.dagster_event) for e in instance.all_logs(run) if e.dagster_event]

    def when(event: Event, step: str) -> list[float]:
        return [at for at, each in entries if each.event_type == event and each.step_key == step]

    assert result.success and not when(Event.STEP_FAILURE, "refused"), entries
    (given_away,) = when(Event.STEP_UP_FOR_RETRY, "refused")
    begun, again = when(Event.STEP_WORKER_STARTING, "refused")
    told = api.times(CLOSED)[0] + int(CLOSED.split("/")[2])
    between = when(Event.STEP_START, "other") + when(Event.STEP_SUCCESS, "other")
    assert len(between) == 2 and all(begun < given_away < at < again for at in between), "the place was not free"
    # On a busy machine the other step may need the place for longer.
    assert told <= again <= max(told, *between) + LATE_MAX, f"again {again - told:.2f} s after the time that was named"
    assert all(at >= told for at in api.times(CLOSED)[1:]), "the API was asked before the time that it named"
    assert api.requests(CLOSED) == 2, "the refusal was forbear's own, and the second start was enough"
    return f"again {again - told:.2f} s after the time that was named"


def check_example(_: upstream.Api, forbear: sidecar.Forbear) -> None:
    resources = {"github": jobs.GitHub(base_url=f"{forbear.proxy}/github")}
    result = dg.materialize([issues], run_config=jobs.QUIET, partition_key="dagster-io/dagster", resources=resources)
    (materialized,) = result.asset_materializations_for_node("issues")
    assert materialized.metadata["issues"].value == 103, materialized
    quota = defs.resolve_job_def("quota").execute_in_process(jobs.QUIET, resources=resources)
    assert quota.output_for_node("remaining") == 4999
    assert "429" in forbear.counted("forbear_upstream_attempts_total", "github"), "the API never refused"


def check_bluesky(_: upstream.Api, forbear: sidecar.Forbear, folder: Path) -> None:
    session = {"login": "someone.test", "password": "password", "session_file": str(folder / "session.txt")}
    resources = {"bluesky": Bluesky(base_url=f"{forbear.proxy}/bluesky", **session)}
    wanted = {"ops": {"accounts": {"config": {"uri": "at://someone.test/app.bsky.graph.list/1"}}}}
    with dg.DagsterInstance.ephemeral() as instance:
        dg.materialize([accounts], {**jobs.QUIET, **wanted}, instance, resources)
        (account,) = instance.get_dynamic_partitions("accounts")
        result = dg.materialize(
            [accounts, feed], jobs.QUIET, instance, resources, partition_key=account, selection=[feed]
        )
    (materialized,) = result.asset_materializations_for_node("feed")
    assert materialized.metadata["posts"].value == 5, materialized
    # Two refusals, of the list and of the feed; one login, since the second asset found the session.
    attempts = forbear.counted("forbear_upstream_attempts_total", "bluesky")
    assert attempts == {"200": 1 + 1 + 3, "429": 2}, attempts


def check_sdk(_: upstream.Api, forbear: sidecar.Forbear) -> None:
    """The hook of the Bluesky example is before the SDK's own exceptions."""
    context = SimpleNamespace(run=SimpleNamespace(run_id="run", tags={}))
    for name, expected in (("dead", dg.RetryRequested), ("nowhere", dg.Failure)):
        bluesky = Bluesky(base_url=f"{forbear.proxy}/{name}", login="someone.test", password="password")
        try:
            bluesky.client(context)
        except expected:
            continue
        raise AssertionError(f"{name} is no {expected.__name__}")


def check_files() -> str:
    files = sorted(EXAMPLES.rglob("*.py"))
    command = [Path(sys.executable).with_name("ruff"), "check", "--isolated", "--no-cache", "--line-length", "120"]
    done = subprocess.run([*command, "--target-version", "py310", "--select", "E,F,I,UP,B", *files],
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    for helper in EXAMPLES.rglob("forbear_*.py"):
        assert len(helper.read_text().splitlines()) <= 100, f"{helper} has more than 100 lines"
    for configuration in EXAMPLES.glob("*/config.toml"):
        done = subprocess.run([FORBEAR, "check", configuration], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    return f"{len(files)} files"


def main() -> int:
    report.check("examples: no lint finds fault, helpers are small, configurations are accepted", check_files)
    for case in refusals.cases():
        report.check(f"Dagster: {case.name}", lambda case=case: check_case(case))
    report.check("Dagster: a success passes, and so does what came without forbear", check_others)
    report.check("Dagster: a run is its own flow, and a backfill is one", check_backfill)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        upstream.make_certificates(folder)
        api = upstream.Api(folder)
        forbear = sidecar.Forbear(FORBEAR, folder, CONFIGURATION.format(url=api.url))

        def check(name: str, test: Callable[..., object], *more: object) -> None:
            report.check(f"Dagster: {name}", lambda: test(api, forbear, *more))

        try:
            check("the example does its work through a refusal", check_example)
            check("the Bluesky example does its work through refusals, and stays behind forbear", check_bluesky, folder)
            check("an SDK's failures reach Dagster by its hook", check_sdk)
            check("200 requests of an API that admits 25 a second, and no step fails", check_many)
            check("a refused step starts again as named, and gives its place away until then", check_place, folder)
        finally:
            forbear.close()
            api.close()
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
