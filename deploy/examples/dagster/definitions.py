"""Open issues of a few repositories, an asset partition for each.

Run it with `forbear run -c config.toml -- dagster dev -f definitions.py`. No retry, limiter or breaker is left
here: the resource knows where the API is, and nothing else.
"""

import os
from typing import Any

import dagster as dg
import requests
from forbear_dagster import checked, headers

REPOSITORIES = dg.StaticPartitionsDefinition(["dagster-io/dagster", "apache/airflow", "dlt-hub/dlt"])
PER_PAGE = 100
# Longer than `max_wait` in config.toml: forbear answers before this client gives up.
TIMEOUT = 330


class GitHub(dg.ConfigurableResource):
    """The API, behind forbear."""

    base_url: str

    def get(self, context: dg.OpExecutionContext | dg.AssetExecutionContext, path: str, **query: Any) -> Any:
        url = f"{self.base_url}/{path}"
        return checked(requests.get(url, params=query, headers=headers(context), timeout=TIMEOUT)).json()


@dg.asset(partitions_def=REPOSITORIES)
def issues(context: dg.AssetExecutionContext, github: GitHub) -> dg.MaterializeResult:
    """Every open issue of one repository."""
    found: list[dict] = []
    page = 1
    while len(found) == (page - 1) * PER_PAGE:
        path = f"repos/{context.partition_key}/issues"
        found += github.get(context, path, state="open", per_page=PER_PAGE, page=page)
        page += 1
    return dg.MaterializeResult(metadata={"issues": len(found)})


@dg.op
def remaining(context: dg.OpExecutionContext, github: GitHub) -> int:
    """What is left of the quota, by the API's own word; asking costs nothing."""
    return github.get(context, "rate_limit")["resources"]["core"]["remaining"]


@dg.job
def quota() -> None:
    """The same from an op."""
    remaining()


defs = dg.Definitions(
    assets=[issues],
    jobs=[quota],
    resources={"github": GitHub(base_url=os.environ.get("FORBEAR_URL", "http://localhost:8080") + "/github")},
)
