"""Hands to Airflow what forbear could not wait out: copy this file beside your DAGs.

A refusal that a wait helps against becomes `AirflowRescheduleException`, so that the worker's slot is free until the
time that was named. Anything else becomes `AirflowFailException`, which no `retries` repeat.
"""

import logging
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from typing import Any, TypeVar
from urllib.parse import quote

from airflow.sdk.exceptions import AirflowFailException, AirflowRescheduleException

LOG = logging.getLogger(__name__)
# Starts of one task again, each at a time that somebody named; Airflow itself has no bound.
RESCHEDULES_MAX = 10
# What to wait where nobody named a time, and the longest wait that is worth keeping a task for.
WAIT_UNKNOWN = timedelta(seconds=60)
WAIT_MAX = timedelta(hours=6)

# A response of requests or of httpx.
Response = TypeVar("Response", bound=Any)


def headers(context: Mapping[str, Any]) -> dict[str, str]:
    """Who asks: the run for log and ledger, and what shares fairly with others; a backfill is one."""
    run = context["dag_run"]
    backfill = str(getattr(run.run_type, "value", run.run_type)) == "backfill"
    flow = f"{run.dag_id}/backfill" if backfill else f"{run.dag_id}/{run.run_id}"
    # forbear takes 128 printable characters; ids of runs may have any.
    said = {"Forbear-Run": f"{run.dag_id}/{run.run_id}", "Forbear-Flow": flow}
    return {name: quote(value, safe="/:+")[-128:] for name, value in said.items()}


def checked(response: Response, context: Mapping[str, Any]) -> Response:
    """The response, unless it is a failure; to be called where `raise_for_status()` was."""
    if response.status_code < 400:
        return response
    verdict = response.headers.get("Forbear-Verdict")
    if verdict is None:
        response.raise_for_status()  # It did not come through forbear.
    problem = refusal(response)
    why = problem.get("detail") or f"The API answered {response.status_code}: {response.text[:500]}"
    why = f"{why} (forbear explain {response.headers.get('Forbear-Request-Id')})"
    if verdict in ("permanent", "credential"):
        raise AirflowFailException(why)
    if may_have_acted(response, verdict, problem):
        raise AirflowFailException(f"It may have been done, and is not repeated. {why}")
    at = reschedule_date(response, problem)
    if at - datetime.now(timezone.utc) > WAIT_MAX:
        raise AirflowFailException(f"It would work from {at} on. {why}")
    if context.get("task_reschedule_count", 0) >= RESCHEDULES_MAX:
        raise AirflowFailException(f"Tried {RESCHEDULES_MAX} times more, each when it was told to. {why}")
    LOG.info("Comes back at %s. %s", at, why)
    raise AirflowRescheduleException(at)


def refusal(response: Any) -> dict[str, Any]:
    """The body, if forbear refused; nothing, if the API itself answered."""
    if not response.headers.get("Content-Type", "").startswith("application/problem+json"):
        return {}
    problem = response.json()
    return problem if str(problem.get("type")).startswith("urn:forbear:") else {}


def reschedule_date(response: Any, problem: dict[str, Any]) -> datetime:
    """From the most exact word to the least; never earlier than was said."""
    now = datetime.now(timezone.utc)
    if "retry_after_ms" in problem:
        return now + timedelta(milliseconds=problem["retry_after_ms"])
    if at := problem.get("retry_at") or response.headers.get("Forbear-Retry-At"):
        return max(now, datetime.fromisoformat(at.replace("Z", "+00:00")))
    after = response.headers.get("Retry-After", "")
    return now + (timedelta(seconds=int(after)) if after.isdigit() else WAIT_UNKNOWN)


def may_have_acted(response: Any, verdict: str, problem: dict[str, Any]) -> bool:
    """Whether a repeat could do a thing twice. A refusal by a limit was before anything was done."""
    request = response.request
    if request.method not in ("POST", "PATCH") or request.headers.get("Forbear-Retry") == "idempotent":
        return False
    if problem:
        refused = ("throttled", "exhausted")
        return any(a["sent"] != "nothing" and a["outcome"] not in refused for a in problem["attempts"])
    return verdict == "retryable"
