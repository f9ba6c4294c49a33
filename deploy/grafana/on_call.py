"""What is wrong now, and where?"""

from panels import (
    BAD,
    F,
    FAIR,
    GOOD,
    OURS,
    PER_UPSTREAM,
    REFUSED,
    SHARE,
    U,
    dashboard,
    failing,
    lines,
    panel,
    quantile,
    rate,
    stat,
    steps,
)

STATE = (
    f'max by (upstream, breaker) (1 * forbear_breaker_state{{{U}, state="half_open"}}'
    f' or 2 * forbear_breaker_state{{{U}, state="open"}} or 3 * forbear_breaker_state{{{U}, state="forced_open"}})'
)
STATES = [
    {
        "type": "value",
        "options": {
            str(n): {"text": name, "color": colour, "index": n}
            for n, (name, colour) in enumerate(
                (("closed", GOOD), ("half-open", FAIR), ("open", BAD), ("forced open", "purple"))
            )
        },
    }
]
ON_CALL = {
    "Now": [
        stat(
            "Breakers not closed",
            "Upstreams or routes that are left alone because they are ill, or were forced open.",
            f'count(max by (namespace, upstream, breaker) (forbear_breaker_state{{{U}, state=~"open|half_open|forced_open"}}) == 1) or vector(0)',
            thresholds=steps(GOOD, (1, BAD)),
        ),
        stat(
            "Alerts firing",
            "Of forbear; the runbook has an entry for each.",
            'count(ALERTS{alertname=~"Forbear.*", alertstate="firing"}) or vector(0)',
            thresholds=steps(GOOD, (1, BAD)),
        ),
        stat(
            "Failing share",
            "Worst upstream over 5 minutes, of the valid requests.",
            f"max(namespace_upstream:forbear_slo_errors:ratio_rate5m{{{U}}})",
            unit="percentunit",
            thresholds=steps(GOOD, (0.01, FAIR), (0.144, BAD)),
        ),
        stat(
            "In forbear now",
            "Requests that have begun and not ended, those that wait included.",
            f"sum(forbear_requests_in_flight{{{U}}})",
        ),
        stat(
            "Waiting for a key",
            "Requests that wait for a permit of a concurrency key.",
            f"sum(forbear_concurrency_waiting{{{F}}})",
            thresholds=steps(GOOD, (100, FAIR)),
        ),
        stat("Sidecars", "forbear processes that are scraped now.", f"count(forbear_build_info{{{F}}})"),
    ],
    "Traffic": [
        lines(
            "Answers by outcome",
            "What the jobs got, per second. rejected_* are forbear's own refusals.",
            [("{{outcome}}", rate("forbear_requests_total", "outcome"))],
            stacked=True,
            unit="reqps",
        ),
        lines(
            "Failing requests by upstream",
            "Share of the valid requests; the budget is 1 %, and 14.4 % for an hour is a page.",
            [(PER_UPSTREAM, failing("$__rate_interval", "upstream"))],
            unit="percentunit",
            thresholds=steps(GOOD, (0.01, FAIR), (0.144, BAD)),
        ),
        lines(
            "Time to the last byte",
            "As the jobs see it, waits and retries included.",
            [(f"p{q * 100:g}", quantile(q, "forbear_request_duration_seconds")) for q in (0.5, 0.95, 0.99)],
            unit="s",
        ),
    ],
    "Protection": [
        panel(
            "state-timeline",
            "Breakers",
            "The worst state of any sidecar.",
            [("{{upstream}} {{breaker}}", STATE)],
            width=24,
            height=6,
            options={"showValue": "never", "mergeValues": True, "rowHeight": 0.8},
            defaults={"mappings": STATES},
        ),
        lines(
            "Attempts per request",
            "1 means that nothing is repeated. Above 2 for long, retries make it worse.",
            [(PER_UPSTREAM, f"namespace_upstream:forbear_attempts_per_request:ratio_rate15m{{{U}}}")],
            thresholds=steps(GOOD, (2, BAD)),
        ),
        lines(
            "Retries by reason",
            "How attempts had ended that were repeated, per second.",
            [("{{reason}}", rate("forbear_retries_total", "reason"))],
            stacked=True,
            unit="reqps",
        ),
        lines(
            "Waits",
            "Requests that are held, on average over the interval, by reason: seconds waited per second.",
            [("{{reason}}", rate("forbear_wait_duration_seconds_sum", "reason"))],
            stacked=True,
        ),
        lines(
            "Quota left",
            "Of the tightest quota that the API last told of; the lowest of all sidecars.",
            [
                (
                    PER_UPSTREAM,
                    f"min by (upstream) (forbear_ratelimit_remaining{{{U}}} / forbear_ratelimit_limit{{{U}}})",
                )
            ],
            unit="percentunit",
            thresholds=steps(BAD, (0.05, FAIR), (0.2, GOOD)),
            defaults=SHARE,
        ),
        lines(
            "Seconds to the reset",
            "Until that quota is renewed.",
            [
                (
                    PER_UPSTREAM,
                    f"clamp_min(max by (upstream) (forbear_ratelimit_reset_timestamp_seconds{{{U}}}) - time(), 0)",
                )
            ],
            unit="s",
        ),
        lines(
            "Retry budget left",
            "Retries are bounded, so that an outage is not made worse. At 0 failures are passed on at once.",
            [(PER_UPSTREAM, f"min by (upstream) (forbear_retry_budget_remaining_ratio{{{U}}})")],
            unit="percentunit",
            defaults=SHARE,
        ),
    ],
    "Saturation": [
        lines(
            "Permits in use",
            "Per concurrency key, of its limit; the fullest sidecar.",
            [("{{key}}", f"max by (key) (forbear_concurrency_in_use{{{F}}} / forbear_concurrency_limit{{{F}}})")],
            unit="percentunit",
            defaults=SHARE,
            thresholds=steps(GOOD, (0.95, FAIR)),
        ),
        lines(
            "Waiting for a key",
            "Requests, all sidecars together.",
            [("{{key}}", f"sum by (key) (forbear_concurrency_waiting{{{F}}})")],
        ),
        lines(
            "Refusals",
            "By reason, per second: forbear's own answers.",
            [("{{outcome}}", rate("forbear_requests_total", "outcome", REFUSED))],
            stacked=True,
            unit="reqps",
        ),
    ],
    "Sidecars": [
        lines(
            "Restarts",
            "Processes that began anew at the same address, per hour.",
            [("restarts", f"sum(changes(process_start_time_seconds{{{F}}}[1h]) {OURS})")],
            width=6,
        ),
        lines(
            "Memory",
            "The biggest and the middle one, against the limit of 128 MiB that the manifests set.",
            [
                ("biggest", f"max(process_resident_memory_bytes{{{F}}} {OURS})"),
                ("middle", f"quantile(0.5, process_resident_memory_bytes{{{F}}} {OURS})"),
            ],
            width=6,
            unit="bytes",
            thresholds=steps(GOOD, (134217728, BAD)),
        ),
        lines(
            "Configurations in force",
            "Sidecars per configuration. More than one for long means that some did not take the new one.",
            [("{{hash}}", f"count by (hash) (forbear_config_info{{{F}}})")],
            width=6,
            stacked=True,
        ),
        lines(
            "Versions",
            "Sidecars per build.",
            [("{{version}} {{revision}}", f"count by (version, revision) (forbear_build_info{{{F}}})")],
            width=6,
            stacked=True,
        ),
    ],
}

DASHBOARD = dashboard("on-call", __doc__, ON_CALL, since="3h", refresh="30s")
