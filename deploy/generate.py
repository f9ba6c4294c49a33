#!/usr/bin/env python3
"""Writes what is derived here: `deploy/generate.py`; with --check it only compares. Needs PyYAML.

The dashboards come from the Python files in grafana/, the PrometheusRule has the groups of forbear.rules.yml,
and Dagster's configuration the container of the kustomize components.
"""

import json
import sys
import textwrap
from pathlib import Path

import yaml

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "grafana"))

import debug  # noqa: E402
import executive  # noqa: E402
import on_call  # noqa: E402


def prometheus_rule() -> str:
    text = (HERE / "prometheus/forbear.rules.yml").read_text()
    groups = text[text.index("groups:") :]
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
    (sidecar,) = template["spec"]["containers"]
    metadata = template["metadata"]
    # Lists are appended to what else there is, as long as merge_behavior is DEEP, the default.
    pod_spec = {"initContainers": [sidecar | {"restartPolicy": "Always"}], "volumes": template["spec"]["volumes"]}
    container = {"env": [{"name": "GITHUB_API_URL", "value": "http://localhost:8080/github"}]}
    tag = {"pod_template_spec_metadata": metadata, "pod_spec_config": pod_spec, "container_config": container}
    values = {
        "runLauncher": {
            "type": "K8sRunLauncher",
            "config": {
                "k8sRunLauncher": {
                    "runK8sConfig": {
                        "podTemplateSpecMetadata": metadata,
                        "podSpecConfig": pod_spec,
                        "containerConfig": container,
                    }
                }
            },
        }
    }
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
    boards = [each.DASHBOARD for each in (executive, on_call, debug)]
    files = {HERE / f"grafana/{board['uid'].removeprefix('forbear-')}.json": board for board in boards}
    files = {file: json.dumps(board, indent=1) + "\n" for file, board in files.items()}
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
