#!/usr/bin/env python3
"""Writes what is derived here: `deploy/generate.py`; with --check it only compares. Needs PyYAML.

The dashboards: everything that differs between panels is data below, the rest is left to Grafana's
defaults. Each query is asked of a real Prometheus by tests/deploy/observe.py, so a misspelt metric is
found. The PrometheusRule has the groups of forbear.rules.yml, and Dagster's values the container of
the kustomize components.
"""

import json
import sys
import textwrap
from pathlib import Path

import yaml

HERE = Path(__file__).parent
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
# Selectors: F of a whole namespace, U of an upstream in it. I is of one process.
F = 'namespace=~"$namespace"'
U = f'{F}, upstream=~"$upstream"'
I = f'{F}, instance=~"$instance"'
IU = f'{U}, instance=~"$instance"'
REFUSED = f'{U}, outcome=~"rejected_.*"'
WELL = f'{U}, code=~"[23].."'
LIMITED = f'{U}, code="429"'
# As in forbear.rules.yml: what says nothing about the upstream or forbear.
INVALID = "client_error|client_disconnect|rejected_(no_route|bad_request|too_large|loop)"
BUDGET = "scalar(forbear:slo_error_budget:ratio)"
GOOD, FAIR, BAD, PLAIN = "green", "orange", "red", "blue"


def sum_by(labels: str) -> str:
    return f"sum by ({labels})" if labels else "sum"


def failing(window: str, by: str = "") -> str:
    """Share of the valid requests that ended badly; 0, not absent, while there was none."""
    bad = f'increase(forbear_requests_total{{{U}, outcome!~"ok|{INVALID}"}}[{window}])'
    some = f'increase(forbear_requests_total{{{U}, outcome!~"{INVALID}"}}[{window}])'
    return f"({sum_by(by)} ({bad}) or 0 * {sum_by(by)} ({some})) / ({sum_by(by)} ({some}) > 0)"


def quantile(q: float, metric: str, by: str = "", selector: str = U) -> str:
    rate = f"rate({metric}_bucket{{{selector}}}[$__rate_interval])"
    return f"histogram_quantile({q}, sum by (le{by and ', ' + by}) ({rate}))"


def rate(metric: str, by: str, selector: str = U) -> str:
    return f"{sum_by(by)} (rate({metric}{{{selector}}}[$__rate_interval]))"


def total(metric: str, by: str = "", selector: str = U) -> str:
    return f"{sum_by(by)} (increase({metric}{{{selector}}}[$__range]))"


def steps(*pairs) -> dict:
    """Thresholds: colours, each but the first with the value from which on it holds."""
    first, *rest = pairs
    return {"mode": "absolute",
            "steps": [{"color": first, "value": None}] + [{"color": c, "value": v} for v, c in rest]}


def panel(kind, title, text, queries, width=8, height=8, unit="short", thresholds=None,
          instant=False, options=None, custom=None, defaults=None, **extra) -> dict:
    """queries: one expression, or (legend, expression) pairs."""
    if isinstance(queries, str):
        queries = [("", queries)]
    field = {"unit": unit, "thresholds": thresholds or steps(PLAIN), **(defaults or {})}
    if custom:
        field["custom"] = custom
    targets = [
        {"refId": chr(ord("A") + n), "datasource": DATASOURCE, "expr": expr, "legendFormat": legend,
         "instant": instant, "range": not instant, **extra.get("target", {})}
        for n, (legend, expr) in enumerate(queries)
    ]
    built = {
        "type": kind, "title": title, "description": text, "datasource": DATASOURCE,
        "gridPos": {"w": width, "h": height}, "targets": targets, "options": options or {},
        "fieldConfig": {"defaults": field, "overrides": extra.get("overrides", [])},
    }
    if "transformations" in extra:
        built["transformations"] = extra["transformations"]
    return built


def stat(title, text, queries, width=4, **more) -> dict:
    options = {"reduceOptions": {"calcs": ["lastNotNull"], "values": False}, "colorMode": "value",
               "graphMode": "none"}
    return panel("stat", title, text, queries, width=width, height=4, instant=True,
                 options=options, **more)


def lines(title, text, queries, stacked=False, **more) -> dict:
    custom = {"fillOpacity": 20 if stacked else 0, "showPoints": "never",
              "stacking": {"mode": "normal" if stacked else "none"}}
    if "thresholds" in more:
        custom["thresholdsStyle"] = {"mode": "dashed"}
    options = {"legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
               "tooltip": {"mode": "multi", "sort": "desc"}}
    return panel("timeseries", title, text, queries, options=options, custom=custom, **more)


def bars(title, text, queries, **more) -> dict:
    options = {"orientation": "horizontal", "displayMode": "basic",
               "reduceOptions": {"calcs": ["lastNotNull"], "values": False}}
    return panel("bargauge", title, text, queries, instant=True, options=options, **more)


def heatmap(title, text, query, **more) -> dict:
    options = {"calculate": False, "yAxis": {"unit": "s"}, "color": {"mode": "scheme", "scheme": "Oranges"}}
    return panel("heatmap", title, text, [("{{le}}", query)], options=options,
                 target={"format": "heatmap"}, **more)


def note(title, text, content, width=24) -> dict:
    built = panel("text", title, text, [], width=width, height=5,
                  options={"mode": "markdown", "content": content})
    return built


SHARE = {"min": 0, "max": 1}
PER_UPSTREAM = "{{upstream}}"

EXECUTIVE = {
    "The objective": [
        stat("Requests that ended well", "Of all valid requests: the jobs' own mistakes and clients that left do not count.",
             [(f"{days} days", f"1 - ({failing(f'{days}d')})") for days in (7, 30, 90)], width=12,
             unit="percentunit", thresholds=steps(BAD, (0.98, FAIR), (0.99, GOOD)), defaults={"decimals": 2, **SHARE}),
        stat("Requests", "How many there were in the time shown.", total("forbear_requests_total"), width=4),
        stat("Refused by forbear", "Requests that forbear answered itself, because the API could not be asked in time.",
             f'{total("forbear_requests_total", "", REFUSED)} or vector(0)', width=4),
        stat("Saved by forbear", "Requests that would have failed and were answered well, after a retry or a wait. The worth of it in one number.",
             total("forbear_requests_recovered_total"), width=4, thresholds=steps(GOOD)),
        bars("Error budget left", "Per upstream, of what the objective permits in the time shown. Below 0 the objective is missed.",
             [(PER_UPSTREAM, f'1 - ({failing("$__range", "upstream")}) / {BUDGET}')], width=12, unit="percentunit",
             thresholds=steps(BAD, (0, FAIR), (0.25, GOOD)), defaults=SHARE),
        bars("Minutes beyond the objective", "Minutes in which more failed than the objective permits, per upstream.",
             [(PER_UPSTREAM, f"sum by (upstream) (sum_over_time((namespace_upstream:forbear_slo_errors:ratio_rate5m{{{U}}} > bool {BUDGET})[$__range:1m]))")],
             width=12, unit="m", thresholds=steps(GOOD, (60, FAIR), (432, BAD))),
    ],
    "What forbear did": [
        lines("Saved requests", "Per upstream: requests that would have failed without a retry or a wait.",
              [(PER_UPSTREAM, "sum by (upstream) (increase(forbear_requests_recovered_total{" + U + "}[$__rate_interval]))")], stacked=True),
        bars("Time waited on behalf of the jobs", "Sum over all requests: in line, for a quota, because the API said so, between attempts, for a breaker.",
             [("{{reason}}", total("forbear_wait_duration_seconds_sum", "reason"))], unit="s"),
        bars("Calls spared", "Requests not sent to an API that was down, since its breaker was open.",
             [(PER_UPSTREAM, total("forbear_breaker_rejections_total", "upstream"))]),
    ],
    "The APIs": [
        panel("table", "Reliability of the APIs", "What they answered, before forbear mended it: per attempt, not per request.",
              [("", total("forbear_upstream_attempts_total", "upstream")),
               ("", f'{total("forbear_upstream_attempts_total", "upstream", WELL)} / {total("forbear_upstream_attempts_total", "upstream")}'),
               ("", f'({total("forbear_upstream_attempts_total", "upstream", LIMITED)} or 0 * {total("forbear_upstream_attempts_total", "upstream")}) / {total("forbear_upstream_attempts_total", "upstream")}'),
               ("", "histogram_quantile(0.95, sum by (le, upstream) (increase(forbear_upstream_attempt_duration_seconds_bucket{" + U + "}[$__range])))"),
               ("", total("forbear_retries_total", "upstream"))],
              width=24, instant=True, target={"format": "table"},
              transformations=[
                  {"id": "merge", "options": {}},
                  {"id": "organize", "options": {
                      "excludeByName": {"Time": True},
                      "renameByName": {"upstream": "API", "Value #A": "attempts", "Value #B": "answered well",
                                       "Value #C": "429", "Value #D": "p95 to the first byte", "Value #E": "repeated"}}}],
              overrides=[
                  {"matcher": {"id": "byName", "options": name}, "properties": [{"id": "unit", "value": unit}]}
                  for name, unit in (("answered well", "percentunit"), ("429", "percentunit"), ("p95 to the first byte", "s"))]),
        lines("Failing share over 6 hours", "Per upstream, against the objective.",
              [(PER_UPSTREAM, f"max by (upstream) (namespace_upstream:forbear_slo_errors:ratio_rate6h{{{U}}})"), ("objective", "max(forbear:slo_error_budget:ratio)")],
              width=24, unit="percentunit"),
    ],
}

STATE = (f'max by (upstream, breaker) (1 * forbear_breaker_state{{{U}, state="half_open"}}'
         f' or 2 * forbear_breaker_state{{{U}, state="open"}} or 3 * forbear_breaker_state{{{U}, state="forced_open"}})')
STATES = [{"type": "value", "options": {
    str(n): {"text": name, "color": colour, "index": n}
    for n, (name, colour) in enumerate((("closed", GOOD), ("half-open", FAIR), ("open", BAD), ("forced open", "purple")))}}]
# Only forbear's own processes; every exporter has series of these names.
OURS = f"and on (job, instance) forbear_build_info{{{F}}}"

ON_CALL = {
    "Now": [
        stat("Breakers not closed", "Upstreams or routes that are left alone because they are ill, or were forced open.",
             f'count(max by (namespace, upstream, breaker) (forbear_breaker_state{{{U}, state=~"open|half_open|forced_open"}}) == 1) or vector(0)', thresholds=steps(GOOD, (1, BAD))),
        stat("Alerts firing", "Of forbear; the runbook has an entry for each.",
             'count(ALERTS{alertname=~"Forbear.*", alertstate="firing"}) or vector(0)', thresholds=steps(GOOD, (1, BAD))),
        stat("Failing share", "Worst upstream over 5 minutes, of the valid requests.",
             f"max(namespace_upstream:forbear_slo_errors:ratio_rate5m{{{U}}})", unit="percentunit", thresholds=steps(GOOD, (0.01, FAIR), (0.144, BAD))),
        stat("In forbear now", "Requests that have begun and not ended, those that wait included.", f"sum(forbear_requests_in_flight{{{U}}})"),
        stat("Waiting for a key", "Requests that wait for a permit of a concurrency key.", f"sum(forbear_concurrency_waiting{{{F}}})", thresholds=steps(GOOD, (100, FAIR))),
        stat("Sidecars", "forbear processes that are scraped now.", f"count(forbear_build_info{{{F}}})"),
    ],
    "Traffic": [
        lines("Answers by outcome", "What the jobs got, per second. rejected_* are forbear's own refusals.",
              [("{{outcome}}", rate("forbear_requests_total", "outcome"))], stacked=True, unit="reqps"),
        lines("Failing requests by upstream", "Share of the valid requests; the budget is 1 %, and 14.4 % for an hour is a page.",
              [(PER_UPSTREAM, failing("$__rate_interval", "upstream"))], unit="percentunit", thresholds=steps(GOOD, (0.01, FAIR), (0.144, BAD))),
        lines("Time to the last byte", "As the jobs see it, waits and retries included.",
              [(f"p{q * 100:g}", quantile(q, "forbear_request_duration_seconds")) for q in (0.5, 0.95, 0.99)], unit="s"),
    ],
    "Protection": [
        panel("state-timeline", "Breakers", "The worst state of any sidecar.", [("{{upstream}} {{breaker}}", STATE)], width=24, height=6,
              options={"showValue": "never", "mergeValues": True, "rowHeight": 0.8}, defaults={"mappings": STATES}),
        lines("Attempts per request", "1 means that nothing is repeated. Above 2 for long, retries make it worse.",
              [(PER_UPSTREAM, f"namespace_upstream:forbear_attempts_per_request:ratio_rate15m{{{U}}}")], thresholds=steps(GOOD, (2, BAD))),
        lines("Retries by reason", "How attempts had ended that were repeated, per second.",
              [("{{reason}}", rate("forbear_retries_total", "reason"))], stacked=True, unit="reqps"),
        lines("Waits", "Requests that are held, on average over the interval, by reason: seconds waited per second.",
              [("{{reason}}", rate("forbear_wait_duration_seconds_sum", "reason"))], stacked=True),
        lines("Quota left", "Of the tightest quota that the API last told of; the lowest of all sidecars.",
              [(PER_UPSTREAM, f"min by (upstream) (forbear_ratelimit_remaining{{{U}}} / forbear_ratelimit_limit{{{U}}})")],
              unit="percentunit", thresholds=steps(BAD, (0.05, FAIR), (0.2, GOOD)), defaults=SHARE),
        lines("Seconds to the reset", "Until that quota is renewed.",
              [(PER_UPSTREAM, f"clamp_min(max by (upstream) (forbear_ratelimit_reset_timestamp_seconds{{{U}}}) - time(), 0)")], unit="s"),
        lines("Retry budget left", "Retries are bounded, so that an outage is not made worse. At 0 failures are passed on at once.",
              [(PER_UPSTREAM, f"min by (upstream) (forbear_retry_budget_remaining_ratio{{{U}}})")], unit="percentunit", defaults=SHARE),
    ],
    "Saturation": [
        lines("Permits in use", "Per concurrency key, of its limit; the fullest sidecar.",
              [("{{key}}", f"max by (key) (forbear_concurrency_in_use{{{F}}} / forbear_concurrency_limit{{{F}}})")], unit="percentunit", defaults=SHARE, thresholds=steps(GOOD, (0.95, FAIR))),
        lines("Waiting for a key", "Requests, all sidecars together.", [("{{key}}", f"sum by (key) (forbear_concurrency_waiting{{{F}}})")]),
        lines("Refusals", "By reason, per second: forbear's own answers.",
              [("{{outcome}}", rate("forbear_requests_total", "outcome", REFUSED))], stacked=True, unit="reqps"),
    ],
    "Sidecars": [
        lines("Restarts", "Processes that began anew at the same address, per hour.",
              [("restarts", f"sum(changes(process_start_time_seconds{{{F}}}[1h]) {OURS})")], width=6),
        lines("Memory", "The biggest and the middle one, against the limit of 128 MiB that the manifests set.",
              [("biggest", f"max(process_resident_memory_bytes{{{F}}} {OURS})"), ("middle", f"quantile(0.5, process_resident_memory_bytes{{{F}}} {OURS})")],
              width=6, unit="bytes", thresholds=steps(GOOD, (134217728, BAD))),
        lines("Configurations in force", "Sidecars per configuration. More than one for long means that some did not take the new one.",
              [("{{hash}}", f"count by (hash) (forbear_config_info{{{F}}})")], width=6, stacked=True),
        lines("Versions", "Sidecars per build.", [("{{version}} {{revision}}", f"count by (version, revision) (forbear_build_info{{{F}}})")], width=6, stacked=True),
    ],
}

LOGS = """Everything about one request is in the log, one JSON line each. In Loki, with the namespace and the container as labels:

`{namespace="$namespace", container="forbear"} | json | id="REQUEST-ID"` · by run: `| run="RUN-ID"` · failures: `| outcome=~"rejected_.*|server_error|throttled"`

The request id is in the answer (`Forbear-Request-Id`). Without Loki: `kubectl logs POD -c forbear | grep REQUEST-ID`."""

DEBUG = {
    "Attempts": [
        lines("Attempts by status", "What the API answered, per second; none: no status came.", [("{{code}}", rate("forbear_upstream_attempts_total", "code", IU))], stacked=True, unit="reqps"),
        lines("Attempts without an answer", "By what failed, per second.", [("{{error}}", rate("forbear_upstream_attempt_errors_total", "error", IU))], stacked=True, unit="reqps"),
        heatmap("Time to the first byte", "Of attempts, as the API is.", "sum by (le) (increase(forbear_upstream_attempt_duration_seconds_bucket{" + IU + "}[$__rate_interval]))"),
        lines("Retries given up", "Why a failure was passed on: attempts or time were spent, the retry budget was, or the body could not be sent again.",
              [("{{by}}", rate("forbear_retries_exhausted_total", "by", IU)), ("body not kept", rate("forbear_replay_unavailable_total", "", IU))], unit="reqps"),
        lines("When to come back", "Answers that said so, by the form in which they did.", [("{{form}}", rate("forbear_retry_after_total", "form", IU))], stacked=True, unit="reqps"),
        heatmap("Time to the last byte", "Of requests, as the jobs see it.", "sum by (le) (increase(forbear_request_duration_seconds_bucket{" + IU + "}[$__rate_interval]))"),
    ],
    "Decisions": [
        lines("Waits, p95", "Of the requests that waited, by reason.", [("{{reason}}", quantile(0.95, "forbear_wait_duration_seconds", "reason", IU))], unit="s"),
        lines("Failure share of breakers", "Over the breaker's window; by default it opens at 50 %.",
              [("{{upstream}} {{breaker}}", f"max by (upstream, breaker) (forbear_breaker_failure_ratio{{{IU}}})")], unit="percentunit", defaults=SHARE, thresholds=steps(GOOD, (0.5, BAD))),
        lines("Next probe", "Seconds until an open breaker lets one request through.",
              [("{{upstream}} {{breaker}}", f"clamp_min(max by (upstream, breaker) (forbear_breaker_open_until_timestamp_seconds{{{IU}}}) - time(), 0)")], unit="s"),
        lines("Breaker transitions", "Per hour.", [("{{upstream}} {{breaker}} to {{to}}", f"sum by (upstream, breaker, to) (increase(forbear_breaker_transitions_total{{{IU}}}[1h]))")]),
        lines("Refusals by a key", "Per second, by reason.", [("{{key}} {{reason}}", f"sum by (key, reason) (rate(forbear_concurrency_rejections_total{{{I}}}[$__rate_interval]))")], unit="reqps"),
        lines("Quota", "Requests left in the tightest quota, and how many it permits.",
              [("{{upstream}} left", f"min by (upstream) (forbear_ratelimit_remaining{{{IU}}})"), ("{{upstream}} limit", f"min by (upstream) (forbear_ratelimit_limit{{{IU}}})")]),
    ],
    "forbear itself": [
        lines("Overhead", "What forbear costs: time less attempts and deliberate waits. The last bucket ends at 50 ms.",
              [(f"p{q * 100:g}", quantile(q, "forbear_overhead_seconds", selector=I)) for q in (0.5, 0.99)], unit="s"),
        lines("CPU", "Of one core.", [("{{instance}}", f"rate(process_cpu_seconds_total{{{I}}}[$__rate_interval]) {OURS}")], unit="percentunit"),
        lines("Memory", "Resident.", [("{{instance}}", f"process_resident_memory_bytes{{{I}}} {OURS}")], unit="bytes"),
        lines("Open files", "And the limit that the system sets.",
              [("{{instance}}", f"process_open_fds{{{I}}} {OURS}"), ("limit", f"min(process_max_fds{{{I}}} {OURS})")]),
        lines("Connections of clients", "Open ones, per listener.", [("{{listener}}", f"sum by (listener) (forbear_listener_connections{{{I}}})")]),
        lines("Connections to upstreams", "Open ones; attempts in flight are at most as many, or share them by HTTP/2.",
              [(PER_UPSTREAM, f"sum by (upstream) (forbear_upstream_connections{{{IU}}})"), ("{{upstream}} requests", f"sum by (upstream) (forbear_requests_in_flight{{{IU}}})")]),
        lines("Payload", "Bytes per second, from clients (request) and to them (response).", [("{{direction}}", rate("forbear_body_bytes_total", "direction", IU))], unit="Bps"),
        lines("Configuration", "Reloads per hour, whether the last one was applied (1), and how many are ending (draining).",
              [("{{result}}", f"sum by (result) (increase(forbear_config_reloads_total{{{I}}}[1h]))"), ("last one applied", f"min(forbear_config_last_reload_successful{{{I}}})"), ("draining", f"sum(forbear_draining{{{I}}})")]),
        lines("What should stay at 0", "Log lines dropped, connections not accepted, panics, and increments that went to a folded series, per hour.",
              [(name, f"sum(increase({metric}{{{I}}}[1h]))") for name, metric in (
                  ("log lines dropped", "forbear_log_lines_dropped_total"), ("not accepted", "forbear_accept_errors_total"),
                  ("panics", "forbear_panics_total"), ("labels folded", "forbear_metrics_label_overflow_total"))], thresholds=steps(GOOD, (1, BAD))),
        note("Logs", "What to ask the log for.", LOGS),
    ],
}


def variable(name: str, label: str, query: str) -> dict:
    return {"type": "query", "name": name, "label": label, "datasource": DATASOURCE, "query": query,
            "refresh": 2, "sort": 1, "multi": True, "includeAll": True, "allValue": ".*",
            "current": {"text": ["All"], "value": ["$__all"]}}


def annotation(name: str, colour: str, expr: str, **more) -> dict:
    return {"name": name, "enable": True, "iconColor": colour, "datasource": DATASOURCE,
            "target": {"refId": "Anno", "expr": expr, "interval": "1m"}, **more}


def placed(rows: dict) -> list:
    """Panels of each row from left to right, as many as fit beside each other."""
    panels, y = [], 0
    for title, row in rows.items():
        panels.append({"type": "row", "title": title, "collapsed": False, "panels": [],
                       "gridPos": {"x": 0, "y": y, "w": 24, "h": 1}})
        x, y, height = 0, y + 1, 0
        for each in row:
            size = each["gridPos"]
            if x + size["w"] > 24:
                x, y, height = 0, y + height, 0
            panels.append({**each, "gridPos": {"x": x, "y": y, **size}})
            x, height = x + size["w"], max(height, size["h"])
        y += height
    return [{"id": n, **each} for n, each in enumerate(panels, 1)]


def dashboard(name: str, text: str, rows: dict, since: str, refresh: str, instances: bool = False) -> dict:
    variables = [
        {"type": "datasource", "name": "datasource", "label": "Data source", "query": "prometheus",
         "refresh": 1},
        variable("namespace", "Namespace", "label_values(forbear_build_info, namespace)"),
        variable("upstream", "Upstream", f"label_values(forbear_upstream_attempts_total{{{F}}}, upstream)"),
    ]
    if instances:
        variables.append(variable("instance", "Instance", f"label_values(forbear_build_info{{{F}}}, instance)"))
    return {
        "uid": f"forbear-{name}", "title": f"forbear: {name}", "description": text, "tags": ["forbear"],
        "schemaVersion": 39, "editable": True, "timezone": "", "refresh": refresh,
        "time": {"from": f"now-{since}", "to": "now"}, "graphTooltip": 1,
        "links": [{"type": "dashboards", "title": "forbear", "tags": ["forbear"], "asDropdown": False,
                   "includeVars": True, "keepTime": False, "targetBlank": False, "icon": "", "tooltip": "", "url": ""}],
        "annotations": {"list": [
            annotation("Breaker transitions", BAD,
                       f"sum by (upstream, breaker, to) (increase(forbear_breaker_transitions_total{{{U}}}[2m])) > 0",
                       titleFormat="{{upstream}} {{breaker}}: {{to}}"),
            annotation("Configuration applied", PLAIN,
                       f"max by (namespace) (forbear_config_last_reload_success_timestamp_seconds{{{F}}}) * 1000",
                       titleFormat="configuration applied in {{namespace}}", useValueForTime=True),
        ]},
        "templating": {"list": variables}, "panels": placed(rows),
    }


DASHBOARDS = {
    "executive": dashboard("executive", "Are the APIs that we depend on kept to their objective, and what does forbear add?", EXECUTIVE, "30d", "5m"),
    "on-call": dashboard("on-call", "What is wrong now, and where?", ON_CALL, "3h", "30s"),
    "debug": dashboard("debug", "Why did it do that? One process or a few.", DEBUG, "1h", "10s", instances=True),
}


def prometheus_rule() -> str:
    text = (HERE / "prometheus/forbear.rules.yml").read_text()
    groups = text[text.index("groups:"):]
    return f"""\
# Written by deploy/generate.py from deploy/prometheus/forbear.rules.yml.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: forbear
spec:
{textwrap.indent(groups, "  ")}"""


def dagster() -> dict[str, str]:
    """The same twice: Dagster's chart wants names like podSpecConfig, and its tag pod_spec_config."""
    template = yaml.safe_load((HERE / "kubernetes/pod/pod.yaml").read_text())["template"]
    sidecar, = template["spec"]["containers"]
    metadata = template["metadata"]
    # Lists are appended to what else there is, as long as merge_behavior is DEEP, the default.
    pod_spec = {"initContainers": [sidecar | {"restartPolicy": "Always"}], "volumes": template["spec"]["volumes"]}
    container = {"env": [{"name": "GITHUB_API_URL", "value": "http://localhost:8080/github"}]}
    tag = {"pod_template_spec_metadata": metadata, "pod_spec_config": pod_spec, "container_config": container}
    values = {"runLauncher": {"type": "K8sRunLauncher", "config": {"k8sRunLauncher": {"runK8sConfig": {
        "podTemplateSpecMetadata": metadata, "podSpecConfig": pod_spec, "containerConfig": container}}}}}
    return {
        "values.yaml": f"""\
# Written by deploy/generate.py. For Dagster's Helm chart (`helm upgrade … -f values.yaml`): every run gets
# forbear beside it. A ConfigMap named forbear with config.toml must exist in the namespace of the runs.
{yaml.safe_dump(values, sort_keys=False)}""",
        "tag.yaml": f"""\
# Written by deploy/generate.py. For one job, op or asset:
#
#   forbear = yaml.safe_load(Path("tag.yaml").read_text())
#   @dg.job(tags={{"dagster-k8s/config": forbear}})
#
# PipesK8sClient and execute_k8s_job wait for every container to end with 0; forbear does.
{yaml.safe_dump(tag, sort_keys=False)}""",
    }


def main() -> int:
    files = {HERE / f"grafana/{name}.json": json.dumps(content, indent=1) + "\n" for name, content in DASHBOARDS.items()}
    files[HERE / "kubernetes/monitoring/prometheusrule.yaml"] = prometheus_rule()
    files |= {HERE / "kubernetes/examples/dagster" / name: text for name, text in dagster().items()}
    stale = []
    for file, text in files.items():
        if "--check" not in sys.argv:
            file.write_text(text)
        elif not file.exists() or file.read_text() != text:
            stale.append(str(file.relative_to(HERE)))
    if stale:
        print(f"not up to date: {', '.join(stale)}; run deploy/generate.py", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
