"""A DAG whose task is refused; the test puts it into the DAGs folder, beside the helper."""

import os

import requests
from airflow.sdk import dag, get_current_context, task
from forbear_airflow import checked, headers


@task
def refused() -> None:
    """Asks for what is closed; forbear may not hold it for that long."""
    context = get_current_context()
    url = f"{os.environ['FORBEAR_URL']}/impatient/closed/8/airflow"
    answer = requests.get(url, headers=headers(context), timeout=20)
    assert checked(answer, context).json() == {"open": True}


@task
def before() -> None:
    """Keeps `other` until `refused` has begun."""


@task
def other() -> None:
    """Needs the one place that `refused` would have kept."""


@dag(schedule=None)
def hand_off() -> None:
    """Three tasks and one place."""
    refused()
    before() >> other()


hand_off()
