"""Answers as forbear gives them, and what an orchestrator should make of each: the same for every helper.

The codes come from the README's table of refusals, so that a new one is tested without being named here.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

import requests

README = Path(__file__).resolve().parents[2] / "README.md"
ROW = re.compile(r"^\| `(\w+)` \| (\d{3}) \| (\w+) \| ", re.MULTILINE)
CODES = 16
# What a helper waits where nobody named a time.
UNKNOWN = 60.0
ANSWERED = {"n": 1, "status": 502, "outcome": "unhealthy", "ms": 12, "sent": "answered"}
UNSENT = {"n": 1, "outcome": "unhealthy", "ms": 12, "sent": "nothing"}
LIMITED = {"n": 1, "status": 429, "outcome": "throttled", "ms": 12, "sent": "answered"}


@dataclass
class Case:
    """A response, and the seconds to wait, or `None` for a failure that is not repeated."""

    name: str
    response: requests.Response
    wait: float | None


def response(status: int, fields: dict, body: dict, method: str = "GET", sent: dict | None = None) -> requests.Response:
    made = requests.Response()
    made.status_code = status
    made.headers.update(fields)
    made._content = json.dumps(body).encode()
    made.url = "http://localhost:8080/api/things"
    made.request = requests.Request(method, made.url, headers=sent or {}).prepare()
    return made


def refused(code: str, status: int, verdict: str, *attempts: dict, method: str = "GET", **more) -> requests.Response:
    kind = f"urn:forbear:{code.replace('_', '-')}"
    body = {"type": kind, "title": code, "status": status, "detail": f"{code}, in words.", "code": code, **more}
    body |= {"verdict": verdict, "attempts": list(attempts)}
    fields = {"Content-Type": "application/problem+json", "Forbear-Verdict": verdict, "Forbear-Decision": code}
    return response(status, fields, body, method)


def relayed(status: int, verdict: str, method: str = "GET", sent: dict | None = None, **fields) -> requests.Response:
    fields = {name.replace("_", "-"): value for name, value in fields.items()}
    return response(status, {"Forbear-Verdict": verdict, **fields}, {"error": "no"}, method, sent)


def in_seconds(seconds: float) -> str:
    at = datetime.now(timezone.utc) + timedelta(seconds=seconds)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def cases() -> Iterator[Case]:
    rows = [(code, int(status), verdict) for code, status, verdict in ROW.findall(README.read_text())]
    assert len(rows) == CODES, f"the README has {len(rows)} refusals"
    for code, status, verdict in rows:
        helps = verdict not in ("permanent", "credential")
        told = refused(code, status, verdict, retry_after_ms=40_250, retry_at=in_seconds(40.25))
        yield Case(f"{code}, with a time", told, 40.25 if helps else None)
        yield Case(f"{code}, without", refused(code, status, verdict), UNKNOWN if helps else None)
    day = refused("quota_exhausted", 429, "quota_exhausted", retry_after_ms=86_400_000)
    yield Case("a quota that comes back tomorrow", day, None)
    yield from of_the_api()
    yield from unsafe()


def of_the_api() -> Iterator[Case]:
    """Failures that the API itself answered, and forbear passed on."""
    throttled, past = (429, "throttled"), in_seconds(-5)
    at = {"Retry_After": "90", "Forbear_Retry_At": in_seconds(90)}
    yield Case("the API's 429 with a time", relayed(*throttled, **at), 90)
    yield Case("the API's 429 with seconds alone", relayed(*throttled, Retry_After="90"), 90)
    yield Case("the API's 429 with a moment that has passed", relayed(*throttled, Forbear_Retry_At=past), 0)
    yield Case("the API's 503 without a word", relayed(503, "retryable"), UNKNOWN)
    yield Case("the API's 404", relayed(404, "permanent"), None)
    yield Case("the API's 401", relayed(401, "credential"), None)
    own = {"Content-Type": "application/problem+json", "Forbear-Verdict": "throttled", "Retry-After": "7"}
    yield Case("the API's own problem document", response(429, own, {"type": "about:blank", "retry_after_ms": 1}), 7)


def unsafe() -> Iterator[Case]:
    """What may have been done is not done again."""
    told = {"method": "POST", "retry_after_ms": 1000}
    unreachable, exhausted = ("upstream_unreachable", 502, "retryable"), ("retries_exhausted", 502, "retryable")
    yield Case("a POST that was lost", refused(*exhausted, ANSWERED, **told), None)
    yield Case("a POST that was never sent", refused(*unreachable, UNSENT, **told), 1)
    yield Case("a POST that a limit refused", refused("cooldown", 429, "throttled", LIMITED, **told), 1)
    yield Case("a POST that the API failed", relayed(502, "retryable", "POST"), None)
    yield Case("a POST that the API's limit refused", relayed(429, "throttled", "POST", Retry_After="3"), 3)
    promised = {"Forbear-Retry": "idempotent"}
    yield Case("a POST that does no harm twice", relayed(502, "retryable", "POST", promised, Retry_After="3"), 3)
    yield Case("a PUT that the API failed", relayed(502, "retryable", "PUT", Retry_After="3"), 3)
