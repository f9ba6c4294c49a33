"""How queries, panels and whole dashboards are written: what is the same in all of them.

Only what differs from Grafana's defaults is said. executive.py, on_call.py and debug.py have the data; each query is
asked of a real Prometheus by tests/deploy/observe.py, so a misspelt metric is found.
"""

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

# Only forbear's own processes; every exporter has series of these names.
OURS = f"and on (job, instance) forbear_build_info{{{F}}}"


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
    return {
        "mode": "absolute",
        "steps": [{"color": first, "value": None}] + [{"color": c, "value": v} for v, c in rest],
    }


def panel(
    kind,
    title,
    text,
    queries,
    width=8,
    height=8,
    unit="short",
    thresholds=None,
    instant=False,
    options=None,
    custom=None,
    defaults=None,
    **extra,
) -> dict:
    """queries: one expression, or (legend, expression) pairs."""
    if isinstance(queries, str):
        queries = [("", queries)]
    field = {"unit": unit, "thresholds": thresholds or steps(PLAIN), **(defaults or {})}
    if custom:
        field["custom"] = custom
    targets = [
        {
            "refId": chr(ord("A") + n),
            "datasource": DATASOURCE,
            "expr": expr,
            "legendFormat": legend,
            "instant": instant,
            "range": not instant,
            **extra.get("target", {}),
        }
        for n, (legend, expr) in enumerate(queries)
    ]
    built = {
        "type": kind,
        "title": title,
        "description": text,
        "datasource": DATASOURCE,
        "gridPos": {"w": width, "h": height},
        "targets": targets,
        "options": options or {},
        "fieldConfig": {"defaults": field, "overrides": extra.get("overrides", [])},
    }
    if "transformations" in extra:
        built["transformations"] = extra["transformations"]
    return built


def stat(title, text, queries, width=4, **more) -> dict:
    options = {"reduceOptions": {"calcs": ["lastNotNull"], "values": False}, "colorMode": "value", "graphMode": "none"}
    return panel("stat", title, text, queries, width=width, height=4, instant=True, options=options, **more)


def lines(title, text, queries, stacked=False, **more) -> dict:
    custom = {
        "fillOpacity": 20 if stacked else 0,
        "showPoints": "never",
        "stacking": {"mode": "normal" if stacked else "none"},
    }
    if "thresholds" in more:
        custom["thresholdsStyle"] = {"mode": "dashed"}
    options = {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    return panel("timeseries", title, text, queries, options=options, custom=custom, **more)


def bars(title, text, queries, **more) -> dict:
    options = {
        "orientation": "horizontal",
        "displayMode": "basic",
        "reduceOptions": {"calcs": ["lastNotNull"], "values": False},
    }
    return panel("bargauge", title, text, queries, instant=True, options=options, **more)


def heatmap(title, text, query, **more) -> dict:
    options = {"calculate": False, "yAxis": {"unit": "s"}, "color": {"mode": "scheme", "scheme": "Oranges"}}
    return panel("heatmap", title, text, [("{{le}}", query)], options=options, target={"format": "heatmap"}, **more)


def note(title, text, content, width=24) -> dict:
    built = panel("text", title, text, [], width=width, height=5, options={"mode": "markdown", "content": content})
    return built


SHARE = {"min": 0, "max": 1}
PER_UPSTREAM = "{{upstream}}"


def variable(name: str, label: str, query: str) -> dict:
    return {
        "type": "query",
        "name": name,
        "label": label,
        "datasource": DATASOURCE,
        "query": query,
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": ["All"], "value": ["$__all"]},
    }


def annotation(name: str, colour: str, expr: str, **more) -> dict:
    return {
        "name": name,
        "enable": True,
        "iconColor": colour,
        "datasource": DATASOURCE,
        "target": {"refId": "Anno", "expr": expr, "interval": "1m"},
        **more,
    }


def placed(rows: dict) -> list:
    """Panels of each row from left to right, as many as fit beside each other."""
    panels, y = [], 0
    for title, row in rows.items():
        panels.append(
            {
                "type": "row",
                "title": title,
                "collapsed": False,
                "panels": [],
                "gridPos": {"x": 0, "y": y, "w": 24, "h": 1},
            }
        )
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
        {"type": "datasource", "name": "datasource", "label": "Data source", "query": "prometheus", "refresh": 1},
        variable("namespace", "Namespace", "label_values(forbear_build_info, namespace)"),
        variable("upstream", "Upstream", f"label_values(forbear_upstream_attempts_total{{{F}}}, upstream)"),
    ]
    if instances:
        variables.append(variable("instance", "Instance", f"label_values(forbear_build_info{{{F}}}, instance)"))
    return {
        "uid": f"forbear-{name}",
        "title": f"forbear: {name}",
        "description": text,
        "tags": ["forbear"],
        "schemaVersion": 39,
        "editable": True,
        "timezone": "",
        "refresh": refresh,
        "time": {"from": f"now-{since}", "to": "now"},
        "graphTooltip": 1,
        "links": [
            {
                "type": "dashboards",
                "title": "forbear",
                "tags": ["forbear"],
                "asDropdown": False,
                "includeVars": True,
                "keepTime": False,
                "targetBlank": False,
                "icon": "",
                "tooltip": "",
                "url": "",
            }
        ],
        "annotations": {
            "list": [
                annotation(
                    "Breaker transitions",
                    BAD,
                    f"sum by (upstream, breaker, to) (increase(forbear_breaker_transitions_total{{{U}}}[2m])) > 0",
                    titleFormat="{{upstream}} {{breaker}}: {{to}}",
                ),
                annotation(
                    "Configuration applied",
                    PLAIN,
                    f"max by (namespace) (forbear_config_last_reload_success_timestamp_seconds{{{F}}}) * 1000",
                    titleFormat="configuration applied in {{namespace}}",
                    useValueForTime=True,
                ),
            ]
        },
        "templating": {"list": variables},
        "panels": placed(rows),
    }
