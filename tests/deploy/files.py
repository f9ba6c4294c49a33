"""What lies in deploy/ besides manifests: alerts with their tests and runbook, dashboards, compose, systemd."""

import json
import re
import shutil
import tempfile
import tomllib
from pathlib import Path

import yaml

from tools import CHART, DEPLOY, EVERYTHING, FORBEAR, KUBERNETES, NODE_MODULES, OPERATOR, ROOT, RULES
from tools import documents, kustomize, render, run


def check_yaml() -> str:
    """`y` is a string for PyYAML and a boolean for Go; numbers in annotations are refused."""
    files = [
        file for ending in ("yaml", "yml") for file in DEPLOY.rglob(f"*.{ending}") if "templates" not in file.parts
    ]
    for file in files:
        found = re.findall(r"^.*[:\[,-] +(?:y|n|yes|no|on|off)[ ,\]]*$", file.read_text(), re.MULTILINE | re.IGNORECASE)
        assert not found, f"{file}: quote {found}"
        documents(file.read_text())
    return f"{len(files)} files"


def check_alerts() -> str:
    """Unit tests fire and silence each one, and the runbook knows it, with its severity."""
    rules = yaml.safe_load(RULES.read_text())
    alerts = {rule["alert"]: rule for group in rules["groups"] for rule in group["rules"] if "alert" in rule}
    run("promtool", "check", "rules", RULES)
    run("promtool", "test", "rules", RULES.with_name("forbear.test.yml"))
    run("promtool", "check", "config", RULES.with_name("prometheus.yml"))
    tests = [
        test
        for group in yaml.safe_load(RULES.with_name("forbear.test.yml").read_text())["tests"]
        for test in group["alert_rule_test"]
    ]
    runbook = (DEPLOY / "runbook.md").read_text()
    for name, rule in alerts.items():
        outcomes = {bool(test["exp_alerts"]) for test in tests if test["alertname"] == name}
        assert outcomes == {True, False}, f"{name} is not tested both firing and silent"
        assert rule["annotations"]["runbook_url"] == f"deploy/runbook.md#{name.lower()}", name
        assert f"## {name}\n\n**{rule['labels']['severity']}** · " in runbook, f"the runbook has no entry for {name}"
    assert runbook.count("\n## ") == len(alerts), "the runbook has an entry for an alert that is gone"
    return f"{len(alerts)} alerts"


# Enums become the words and numbers that JSON has; queries have fields of their data source, too.
TYPES = """\
import type { Dashboard, DataQuery } from "@grafana/schema";
import type { IPodMonitor } from "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/PodMonitor";
import type { IPrometheusRule } from "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/PrometheusRule";
type Json<T> = T extends DataQuery ? T & Record<string, unknown>
  : T extends string ? `${T}` : T extends number ? number
  : T extends object ? { [K in keyof T]: Json<T[K]> } : T;
"""


def check_types() -> str:
    """By the types that Grafana and the operator publish: unknown keys and wrong values are errors."""
    checked: list[tuple[str, object]] = []
    for file in sorted((DEPLOY / "grafana").glob("*.json")):
        dashboard = json.loads(file.read_text())
        look_at(dashboard)
        for annotation in dashboard["annotations"]["list"]:
            # Of the data source, like the fields of a query.
            annotation.pop("titleFormat")
            annotation.pop("useValueForTime", None)
        checked.append(("Json<Dashboard>", dashboard))
    operator = [
        each for each in kustomize(KUBERNETES / "monitoring") + render(EVERYTHING) if each["apiVersion"] == OPERATOR
    ]
    checked += [(f"I{each['kind']}", each) for each in operator]
    with tempfile.TemporaryDirectory(dir=NODE_MODULES.parent) as name:
        source = Path(name) / "all.ts"
        source.write_text(
            TYPES
            + "".join(f"export const v{n}: {kind} = {json.dumps(value)};\n" for n, (kind, value) in enumerate(checked))
        )
        run("node", NODE_MODULES / "typescript/bin/tsc", "--noEmit", "--strict", "--skipLibCheck", source)
    return f"{len(checked)} documents"


def look_at(dashboard: dict) -> None:
    """Every panel explains itself, names no data source of ours, and lies on no other."""
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken and at["x"] + at["w"] <= 24, f"{panel['title']} lies on another panel"
        taken |= cells
        assert panel["type"] == "row" or panel["description"].endswith("."), f"{panel['title']} has no description"
    assert set(re.findall(r'"uid": "([^"]+)"', json.dumps(panels))) == {"${datasource}"}


def check_compose() -> None:
    """What it mounts is there, and what it names belongs together."""
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    for name, service in compose["services"].items():
        for source, *_ in (volume.split(":") for volume in service["volumes"]):
            there = (DEPLOY / source).exists() if source.startswith(".") else source in compose["volumes"]
            assert there, f"{name} mounts {source}, which is not there"
        assert set(service.get("depends_on", [])) <= compose["services"].keys()
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), f"{name} faces the network"
    run(FORBEAR, "check", DEPLOY / "compose/forbear/config.toml")


def check_systemd() -> str:
    if not shutil.which("systemd-analyze"):
        return "skipped: systemd-analyze is not installed"
    with tempfile.TemporaryDirectory() as name:
        unit = Path(name) / "forbear.service"
        unit.write_text(
            (DEPLOY / "systemd/forbear.service").read_text().replace("/usr/local/bin/forbear", str(FORBEAR))
        )
        run("systemd-analyze", "verify", "--man=no", unit)
        # In tenths: 0 is as locked up as can be, 100 is open.
        told = run("systemd-analyze", "security", "--offline=yes", "--threshold=20", "--no-pager", unit)
    return re.search(r"exposure level .*: ([\d.]+)", told)[1] + " of 10 exposed"


def check_versions() -> str:
    """The image, the chart and the manifests are of the program's version."""
    version = tomllib.loads((ROOT / "Cargo.toml").read_text())["package"]["version"]
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert (chart["version"], chart["appVersion"]) == (version, version)
    for file in (
        ROOT / "Dockerfile",
        DEPLOY / "compose.yaml",
        KUBERNETES / "pod/pod.yaml",
        KUBERNETES / "sidecar/kustomization.yaml",
    ):
        assert version in file.read_text(), f"{file} names another version than {version}"
    return version
