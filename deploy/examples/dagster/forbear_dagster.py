"""Hands to Dagster what forbear could not wait out: copy this file beside your definitions.

A refusal that a wait helps against becomes `RetryRequested`, so that the step starts again at the time that was
named and its worker does something else until then. Anything else becomes `Failure(allow_retries=False)`.
"""

import math
from datetime import datetime, timezone
from typing import Any, TypeVar

import dagster as dg

# Starts of one step again, each at a time that somebody named.
RETRIES_MAX = 10
# Seconds to wait where nobody named a time, and the longest wait that is worth keeping a run for.
WAIT_UNKNOWN = 60.0
WAIT_MAX = 6 * 3600.0

# A response of requests or of httpx.
Response = TypeVar("Response", bound=Any)


def headers(context: dg.OpExecutionContext | dg.AssetExecutionContext) -> dict[str, str]:
    """Who asks: the run for log and ledger, and what shares fairly with others; a backfill is one."""
    run = context.run
    return {"Forbear-Run": run.run_id, "Forbear-Flow": run.tags.get("dagster/backfill", run.run_id)}


def checked(response: Response) -> Response:
    """The response, unless it is a failure; to be called where `raise_for_status()` was."""
    if response.status_code < 400:
        return response
    verdict = response.headers.get("Forbear-Verdict")
    if verdict is None:
        response.raise_for_status()  # It did not come through forbear.
    problem = refusal(response)
    why = problem.get("detail") or f"The API answered {response.status_code}: {response.text[:500]}"
    facts = {
        "forbear": dg.MetadataValue.json({"verdict": verdict, "code": problem.get("code")}),
        "request_id": response.headers.get("Forbear-Request-Id", "unknown"),
    }
    if verdict in ("permanent", "credential"):
        raise dg.Failure(why, facts, allow_retries=False)
    if may_have_acted(response, verdict, problem):
        raise dg.Failure(f"It may have been done, and is not repeated. {why}", facts, allow_retries=False)
    wait = seconds_to_wait(response, problem)
    if wait > WAIT_MAX:
        raise dg.Failure(f"It would work in {wait:.0f} s. {why}", facts, allow_retries=False)
    raise dg.RetryRequested(RETRIES_MAX, seconds_to_wait=wait) from dg.Failure(why, facts)


def refusal(response: Any) -> dict[str, Any]:
    """The body, if forbear refused; nothing, if the API itself answered."""
    if not response.headers.get("Content-Type", "").startswith("application/problem+json"):
        return {}
    problem = response.json()
    return problem if str(problem.get("type")).startswith("urn:forbear:") else {}


def seconds_to_wait(response: Any, problem: dict[str, Any]) -> float:
    """From the most exact word to the least; never less than was said."""
    if "retry_after_ms" in problem:
        return problem["retry_after_ms"] / 1000
    if at := problem.get("retry_at") or response.headers.get("Forbear-Retry-At"):
        left = datetime.fromisoformat(at.replace("Z", "+00:00")) - datetime.now(timezone.utc)
        return max(0.0, math.ceil(left.total_seconds() * 1000) / 1000)
    after = response.headers.get("Retry-After", "")
    return float(after) if after.isdigit() else WAIT_UNKNOWN


def may_have_acted(response: Any, verdict: str, problem: dict[str, Any]) -> bool:
    """Whether a repeat could do a thing twice. A refusal by a limit was before anything was done."""
    request = response.request
    if request.method not in ("POST", "PATCH") or request.headers.get("Forbear-Retry") == "idempotent":
        return False
    if problem:
        refused = ("throttled", "exhausted")
        return any(a["sent"] != "nothing" and a["outcome"] not in refused for a in problem["attempts"])
    return verdict == "retryable"
