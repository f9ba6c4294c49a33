"""The jobs that the tests run; Dagster's worker processes import this file by its path."""

import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import dagster as dg

EXAMPLE = Path(__file__).resolve().parents[2] / "deploy/examples/dagster"
sys.path.insert(0, str(EXAMPLE))

from definitions import GitHub  # noqa: E402
from forbear_dagster import headers  # noqa: E402

OPS = 4
REQUESTS = 50
CALLERS = 8


# What the tests want to know, they read from the run and not from what it prints.
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


class Api(GitHub):
    """The example's resource, in front of another API."""


@dg.op
def saying(context: dg.OpExecutionContext) -> dict[str, str]:
    return headers(context)


@dg.job
def said() -> None:
    """What a run says of itself."""
    saying()


def fetching(number: int) -> Callable:
    @dg.op(name=f"fetch_{number}")
    def fetch(context: dg.OpExecutionContext, api: Api) -> int:
        paths = [f"window/{number}/{item}" for item in range(REQUESTS)]
        with ThreadPoolExecutor(CALLERS) as pool:
            answers = list(pool.map(lambda path: api.get(context, path), paths))
        assert [answer["path"] for answer in answers] == [f"/{path}" for path in paths]
        return len(answers)

    return fetch


@dg.job
def many() -> None:
    """200 requests of an API that admits 25 a second."""
    for number in range(OPS):
        fetching(number)()


# Of the two, this one is started first.
@dg.op(tags={"dagster/priority": "1"})
def refused(context: dg.OpExecutionContext, api: Api) -> None:
    """Asks for what is closed; forbear may not hold it for that long."""
    assert api.get(context, "closed/12/dagster") == {"open": True}


@dg.op
def other() -> None:
    """Needs the one place that `refused` would have kept."""
    time.sleep(0.1)


@dg.job(
    # Each step is a process of its own, forked from one that has imported everything.
    executor_def=dg.multiprocess_executor.configured({"max_concurrent": 1, "start_method": {"forkserver": {}}}),
    resource_defs={"api": Api(base_url=os.environ.get("API_URL", "http://localhost"))},
)
def shared_place() -> None:
    """Two steps and one place."""
    refused()
    other()
