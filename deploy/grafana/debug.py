"""Why did it do that? One process or a few."""

from panels import BAD, GOOD, I, IU, OURS, PER_UPSTREAM, SHARE, dashboard, heatmap, lines, note, quantile, rate, steps

LOGS = """Everything about one request is one JSON line of the log. In Loki, by request or by run, and failures:

- `{namespace="$namespace", container="forbear"} | json | id="REQUEST-ID"`
- `{namespace="$namespace", container="forbear"} | json | run="RUN-ID"`
- `{namespace="$namespace", container="forbear"} | json | outcome=~"rejected_.*|server_error|throttled"`

The request id is in the answer (`Forbear-Request-Id`). Without Loki: `kubectl exec POD -c forbear -- /usr/local/bin/forbear explain REQUEST-ID`,
or `kubectl logs POD -c forbear | grep REQUEST-ID`.
"""

DEBUG = {
    "Attempts": [
        lines(
            "Attempts by status",
            "What the API answered, per second; none: no status came.",
            [("{{code}}", rate("forbear_upstream_attempts_total", "code", IU))],
            stacked=True,
            unit="reqps",
        ),
        lines(
            "Attempts without an answer",
            "By what failed, per second.",
            [("{{error}}", rate("forbear_upstream_attempt_errors_total", "error", IU))],
            stacked=True,
            unit="reqps",
        ),
        heatmap(
            "Time to the first byte",
            "Of attempts, as the API is.",
            "sum by (le) (increase(forbear_upstream_attempt_duration_seconds_bucket{" + IU + "}[$__rate_interval]))",
        ),
        lines(
            "Retries given up",
            "Why a failure was passed on: attempts, time or retry budget were spent, or the body was not kept.",
            [
                ("{{by}}", rate("forbear_retries_exhausted_total", "by", IU)),
                ("body not kept", rate("forbear_replay_unavailable_total", "", IU)),
            ],
            unit="reqps",
        ),
        lines(
            "When to come back",
            "Answers that said so, by form; capped: too long to be true; invalid: fields that say nothing.",
            [("{{form}}", rate("forbear_retry_after_total", "form", IU))],
            stacked=True,
            unit="reqps",
        ),
        heatmap(
            "Time to the last byte",
            "Of requests, as the jobs see it.",
            "sum by (le) (increase(forbear_request_duration_seconds_bucket{" + IU + "}[$__rate_interval]))",
        ),
    ],
    "Decisions": [
        lines(
            "Waits, p95",
            "Of the requests that waited, by reason.",
            [("{{reason}}", quantile(0.95, "forbear_wait_duration_seconds", "reason", IU))],
            unit="s",
        ),
        lines(
            "Failure share of breakers",
            "Over the breaker's window; by default it opens at 50 %.",
            [("{{upstream}} {{breaker}}", f"max by (upstream, breaker) (forbear_breaker_failure_ratio{{{IU}}})")],
            unit="percentunit",
            defaults=SHARE,
            thresholds=steps(GOOD, (0.5, BAD)),
        ),
        lines(
            "Next probe",
            "Seconds until an open breaker lets one request through.",
            [
                (
                    "{{upstream}} {{breaker}}",
                    f"clamp_min(max by (upstream, breaker) (forbear_breaker_open_until_timestamp_seconds{{{IU}}}) - time(), 0)",
                )
            ],
            unit="s",
        ),
        lines(
            "Breaker transitions",
            "Per hour.",
            [
                (
                    "{{upstream}} {{breaker}} to {{to}}",
                    f"sum by (upstream, breaker, to) (increase(forbear_breaker_transitions_total{{{IU}}}[1h]))",
                )
            ],
        ),
        lines(
            "Refusals by a key",
            "Per second, by reason.",
            [
                (
                    "{{key}} {{reason}}",
                    f"sum by (key, reason) (rate(forbear_concurrency_rejections_total{{{I}}}[$__rate_interval]))",
                )
            ],
            unit="reqps",
        ),
        lines(
            "Quota",
            "Requests left in the tightest quota, and how many it permits.",
            [
                ("{{upstream}} left", f"min by (upstream) (forbear_ratelimit_remaining{{{IU}}})"),
                ("{{upstream}} limit", f"min by (upstream) (forbear_ratelimit_limit{{{IU}}})"),
            ],
        ),
        lines(
            "Locked credentials",
            "Refused again and again, and not sent until one may try again.",
            [("{{upstream}}", f"sum by (upstream) (forbear_credentials_locked{{{IU}}})")],
        ),
        lines(
            "Links",
            "Addresses in answers that were led through forbear, by where they stood, and those that were not, by why; per second.",
            [
                ("{{where}}", rate("forbear_links_rewritten_total", "where", IU)),
                ("not: {{reason}}", rate("forbear_links_untouched_total", "reason", IU)),
            ],
        ),
    ],
    "forbear itself": [
        lines(
            "Overhead",
            "What forbear costs: time less attempts and deliberate waits. The last bucket ends at 50 ms.",
            [(f"p{q * 100:g}", quantile(q, "forbear_overhead_seconds", selector=I)) for q in (0.5, 0.99)],
            unit="s",
        ),
        lines(
            "CPU",
            "Of one core.",
            [("{{instance}}", f"rate(process_cpu_seconds_total{{{I}}}[$__rate_interval]) {OURS}")],
            unit="percentunit",
        ),
        lines("Memory", "Resident.", [("{{instance}}", f"process_resident_memory_bytes{{{I}}} {OURS}")], unit="bytes"),
        lines(
            "Open files",
            "And the limit that the system sets.",
            [("{{instance}}", f"process_open_fds{{{I}}} {OURS}"), ("limit", f"min(process_max_fds{{{I}}} {OURS})")],
        ),
        lines(
            "Connections of clients",
            "Open ones, per listener.",
            [("{{listener}}", f"sum by (listener) (forbear_listener_connections{{{I}}})")],
        ),
        lines(
            "Connections to upstreams",
            "Open ones; attempts in flight are at most as many, or share them by HTTP/2.",
            [
                (PER_UPSTREAM, f"sum by (upstream) (forbear_upstream_connections{{{IU}}})"),
                ("{{upstream}} requests", f"sum by (upstream) (forbear_requests_in_flight{{{IU}}})"),
            ],
        ),
        lines(
            "Payload",
            "Bytes per second, from clients (request) and to them (response).",
            [("{{direction}}", rate("forbear_body_bytes_total", "direction", IU))],
            unit="Bps",
        ),
        lines(
            "Configuration",
            "Reloads per hour, whether the last one was applied (1), and how many are ending (draining).",
            [
                ("{{result}}", f"sum by (result) (increase(forbear_config_reloads_total{{{I}}}[1h]))"),
                ("last one applied", f"min(forbear_config_last_reload_successful{{{I}}})"),
                ("draining", f"sum(forbear_draining{{{I}}})"),
            ],
        ),
        lines(
            "What should stay at 0",
            "Log lines dropped, connections not accepted, panics, increments of a folded series; per hour.",
            [
                (name, f"sum(increase({metric}{{{I}}}[1h]))")
                for name, metric in (
                    ("log lines dropped", "forbear_log_lines_dropped_total"),
                    ("not accepted", "forbear_accept_errors_total"),
                    ("panics", "forbear_panics_total"),
                    ("labels folded", "forbear_metrics_label_overflow_total"),
                )
            ],
            thresholds=steps(GOOD, (1, BAD)),
        ),
        lines(
            "Ledger and traces",
            "Exchanges and events per second: kept as rows, only counted (sampled), lost (dropped). And what the store did,"
            " and the trace collector.",
            [
                (
                    "{{record}} {{result}}",
                    f"sum by (record, result) (rate(forbear_ledger_records_total{{{I}}}[$__rate_interval]))",
                ),
                (
                    "{{op}} {{result}}",
                    f"sum by (op, result) (rate(forbear_store_operations_total{{{I}}}[$__rate_interval]))",
                ),
                ("traces {{result}}", f"sum by (result) (rate(forbear_traces_total{{{I}}}[$__rate_interval]))"),
            ],
            unit="ops",
        ),
        lines(
            "Writing the ledger",
            "Time per batch, of which there is about one a second. Requests never wait for it.",
            [
                (f"p{q * 100:g}", quantile(q, "forbear_store_operation_duration_seconds", selector=I))
                for q in (0.5, 0.99)
            ],
            unit="s",
        ),
        lines(
            "State file",
            "With its write-ahead log; 0 in memory.",
            [("{{instance}}", f"forbear_store_size_bytes{{{I}}}")],
            unit="bytes",
        ),
        note("Logs", "What to ask the log for.", LOGS),
    ],
}

DASHBOARD = dashboard("debug", __doc__, DEBUG, since="1h", refresh="10s", instances=True)
