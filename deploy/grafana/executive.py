"""Are the APIs that we depend on kept to their objective, and what does forbear add?"""

from panels import (
    BAD,
    BUDGET,
    FAIR,
    GOOD,
    LIMITED,
    PER_UPSTREAM,
    REFUSED,
    SHARE,
    U,
    WELL,
    bars,
    dashboard,
    failing,
    lines,
    panel,
    stat,
    steps,
    total,
)

ATTEMPTS = total("forbear_upstream_attempts_total", "upstream")
EXECUTIVE = {
    "The objective": [
        stat(
            "Requests that ended well",
            "Of all valid requests: the jobs' own mistakes and clients that left do not count.",
            [(f"{days} days", f"1 - ({failing(f'{days}d')})") for days in (7, 30, 90)],
            width=12,
            unit="percentunit",
            thresholds=steps(BAD, (0.98, FAIR), (0.99, GOOD)),
            defaults={"decimals": 2, **SHARE},
        ),
        stat("Requests", "How many there were in the time shown.", total("forbear_requests_total"), width=4),
        stat(
            "Refused by forbear",
            "Requests that forbear answered itself, because the API could not be asked in time.",
            f'{total("forbear_requests_total", "", REFUSED)} or vector(0)',
            width=4,
        ),
        stat(
            "Saved by forbear",
            "Requests that would have failed and were answered well, after a retry or a wait.",
            total("forbear_requests_recovered_total"),
            width=4,
            thresholds=steps(GOOD),
        ),
        bars(
            "Error budget left",
            "Per upstream, of what the objective permits in the time shown. Below 0 the objective is missed.",
            [(PER_UPSTREAM, f'1 - ({failing("$__range", "upstream")}) / {BUDGET}')],
            width=12,
            unit="percentunit",
            thresholds=steps(BAD, (0, FAIR), (0.25, GOOD)),
            defaults=SHARE,
        ),
        bars(
            "Minutes beyond the objective",
            "Minutes in which more failed than the objective permits, per upstream.",
            [
                (
                    PER_UPSTREAM,
                    "sum by (upstream) (sum_over_time("
                    f"(namespace_upstream:forbear_slo_errors:ratio_rate5m{{{U}}} > bool {BUDGET})[$__range:1m]))",
                )
            ],
            width=12,
            unit="m",
            thresholds=steps(GOOD, (60, FAIR), (432, BAD)),
        ),
    ],
    "What forbear did": [
        lines(
            "Saved requests",
            "Per upstream: requests that would have failed without a retry or a wait.",
            [
                (
                    PER_UPSTREAM,
                    "sum by (upstream) (increase(forbear_requests_recovered_total{" + U + "}[$__rate_interval]))",
                )
            ],
            stacked=True,
        ),
        bars(
            "Time waited on behalf of the jobs",
            "Sum over all requests: in line, for a quota, because the API said so, between attempts, for a breaker.",
            [("{{reason}}", total("forbear_wait_duration_seconds_sum", "reason"))],
            unit="s",
        ),
        bars(
            "Calls spared",
            "Requests not sent to an API that was down, since its breaker was open.",
            [(PER_UPSTREAM, total("forbear_breaker_rejections_total", "upstream"))],
        ),
    ],
    "The APIs": [
        panel(
            "table",
            "Reliability of the APIs",
            "What they answered, before forbear mended it: per attempt, not per request.",
            [
                ("", ATTEMPTS),
                (
                    "",
                    f'{total("forbear_upstream_attempts_total", "upstream", WELL)} / {ATTEMPTS}',
                ),
                (
                    "",
                    f'({total("forbear_upstream_attempts_total", "upstream", LIMITED)} or 0 * {ATTEMPTS}) / {ATTEMPTS}',
                ),
                (
                    "",
                    "histogram_quantile(0.95, sum by (le, upstream) (increase(forbear_upstream_attempt_duration_seconds_bucket{"
                    + U
                    + "}[$__range])))",
                ),
                ("", total("forbear_retries_total", "upstream")),
            ],
            width=24,
            instant=True,
            target={"format": "table"},
            transformations=[
                {"id": "merge", "options": {}},
                {
                    "id": "organize",
                    "options": {
                        "excludeByName": {"Time": True},
                        "renameByName": {
                            "upstream": "API",
                            "Value #A": "attempts",
                            "Value #B": "answered well",
                            "Value #C": "429",
                            "Value #D": "p95 to the first byte",
                            "Value #E": "repeated",
                        },
                    },
                },
            ],
            overrides=[
                {"matcher": {"id": "byName", "options": name}, "properties": [{"id": "unit", "value": unit}]}
                for name, unit in (
                    ("answered well", "percentunit"),
                    ("429", "percentunit"),
                    ("p95 to the first byte", "s"),
                )
            ],
        ),
        lines(
            "Failing share over 6 hours",
            "Per upstream, against the objective.",
            [
                (PER_UPSTREAM, f"max by (upstream) (namespace_upstream:forbear_slo_errors:ratio_rate6h{{{U}}})"),
                ("objective", "max(forbear:slo_error_budget:ratio)"),
            ],
            width=24,
            unit="percentunit",
        ),
    ],
}

DASHBOARD = dashboard("executive", __doc__, EXECUTIVE, since="30d", refresh="5m")
