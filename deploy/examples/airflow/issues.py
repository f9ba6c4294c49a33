"""Open issues of a few repositories, a mapped task for each; put it with forbear_airflow.py into the DAGs folder.

No retries, pools or sensors are left here: the task knows where the API is, and nothing else.
"""

import os

import requests
from airflow.sdk import dag, get_current_context, task
from forbear_airflow import checked, headers

GITHUB = os.environ.get("FORBEAR_URL", "http://localhost:8080") + "/github"
REPOSITORIES = ["dagster-io/dagster", "apache/airflow", "dlt-hub/dlt"]
PER_PAGE = 100
# Longer than `max_wait` in config.toml: forbear answers before this client gives up.
TIMEOUT = 330


@task
def issues(repository: str) -> int:
    """Counts every open issue of one repository."""
    context = get_current_context()
    found: list[dict] = []
    page = 1
    while len(found) == (page - 1) * PER_PAGE:
        query: dict[str, str | int] = {"state": "open", "per_page": PER_PAGE, "page": page}
        url = f"{GITHUB}/repos/{repository}/issues"
        answer = requests.get(url, params=query, headers=headers(context), timeout=TIMEOUT)
        found += checked(answer, context).json()
        page += 1
    return len(found)


@dag(schedule="@daily", catchup=False)
def open_issues() -> None:
    """A day's look at all of them."""
    issues.expand(repository=REPOSITORIES)


open_issues()
