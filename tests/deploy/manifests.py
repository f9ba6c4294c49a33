"""What lies in deploy/, without a cluster: `manifests.py path/to/forbear path/to/node_modules`.

Everything is built and rendered by the real tools, and held against the published schemas of
Kubernetes, Grafana and the Prometheus operator, and against the facts that schemas do not know.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import helm_python as helm
import kubernetes_validate
import yaml

import files
import report
import tools
from tools import DEPLOY, EVERYTHING, FORBEAR, KUBERNETES, OPERATOR, ROOT, RULES, TOOLS
from tools import documents, good_configuration, kustomize, render, run

# Native sidecars are on by default from the first; the second is the newest that is bundled.
VERSIONS = ("1.29.0", kubernetes_validate.latest_version())


def pod_spec(manifest: dict) -> dict | None:
    """The pod inside of whatever makes pods."""
    match manifest["kind"]:
        case "Pod":
            return manifest["spec"]
        case "Job" | "Deployment" | "StatefulSet":
            return manifest["spec"]["template"]["spec"]
        case "CronJob":
            return manifest["spec"]["jobTemplate"]["spec"]["template"]["spec"]
        case _:
            return None


def valid(manifests: list[dict]) -> int:
    for manifest in manifests:
        if manifest["apiVersion"] == OPERATOR:
            continue  # See files.check_types.
        for version in VERSIONS:
            kubernetes_validate.validate(manifest, version, strict=True)
        if spec := pod_spec(manifest):
            sound(spec)
    return len(manifests)


def sound(spec: dict) -> None:
    """What the API server or the kubelet would find, and the schema does not."""
    volumes = {volume["name"] for volume in spec["volumes"]}
    for container in spec.get("initContainers", []) + spec["containers"]:
        mounted = {mount["name"] for mount in container.get("volumeMounts", [])}
        assert mounted <= volumes, f"no such volume: {mounted - volumes}"
    (sidecar,) = (each for each in spec.get("initContainers", []) + spec["containers"] if each["name"] == "forbear")
    native = sidecar in spec.get("initContainers", [])
    # Without it, an init container would have to end before the application starts.
    assert sidecar.get("restartPolicy") == ("Always" if native else None), sidecar.get("restartPolicy")
    assert "startupProbe" in sidecar, "the application would start before forbear is ready"
    for name in ("startupProbe", "readinessProbe", "livenessProbe"):
        program, *arguments = sidecar[name]["exec"]["command"]
        assert program == "/usr/local/bin/forbear", program
        run(FORBEAR, *arguments, "--help")
    security = sidecar["securityContext"]
    assert security["runAsNonRoot"] and security["readOnlyRootFilesystem"] and not security["allowPrivilegeEscalation"]
    assert security["capabilities"] == {"drop": ["ALL"]} and security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert "cpu" not in sidecar["resources"]["limits"], "a CPU limit adds to every call"


def check_kustomize() -> str:
    built = 0
    for folder in ("examples", "examples/plain", "examples/airflow", "network-policy", "monitoring"):
        manifests = kustomize(KUBERNETES / folder)
        built += valid(manifests)
        for manifest in manifests:
            if manifest["kind"] == "ConfigMap" and "config.toml" in manifest["data"]:
                good_configuration(manifest["data"]["config.toml"])
    return f"{built} manifests valid for {' and '.join(VERSIONS)}"


def check_components() -> str:
    """Every kind, with a pod that has init containers, volumes and labels of its own."""
    pod = {
        "metadata": {"labels": {"app": "a"}},
        "spec": {
            "restartPolicy": "Always",
            "initContainers": [{"name": "first", "image": "a"}],
            "containers": [{"name": "app", "image": "a"}],
            "volumes": [{"name": "own", "emptyDir": {}}],
        },
    }
    selector = {"matchLabels": {"app": "a"}}
    once = {**pod, "spec": {**pod["spec"], "restartPolicy": "Never"}}
    kinds = {
        ("batch/v1", "Job"): {"spec": {"template": once}},
        ("batch/v1", "CronJob"): {"spec": {"schedule": "0 0 * * *", "jobTemplate": {"spec": {"template": once}}}},
        ("apps/v1", "Deployment"): {"spec": {"selector": selector, "template": pod}},
        ("apps/v1", "StatefulSet"): {"spec": {"selector": selector, "serviceName": "a", "template": pod}},
        ("v1", "Pod"): {"spec": pod["spec"]},
    }
    for component in ("sidecar", "plain"):
        with tempfile.TemporaryDirectory(dir=KUBERNETES) as name:
            folder = Path(name)
            manifests = [
                {"apiVersion": api, "kind": kind, "metadata": {"name": "a"}, **rest}
                for (api, kind), rest in kinds.items()
            ]
            (folder / "all.yaml").write_text(yaml.safe_dump_all(manifests))
            (folder / "kustomization.yaml").write_text(
                json.dumps(
                    {
                        "resources": ["all.yaml"],
                        "components": [f"../{component}", "../scrape-annotations"],
                        "images": [{"name": "forbear", "newName": "registry.example/forbear", "newTag": "1"}],
                    }
                )
            )
            built = kustomize(folder)
        assert len(built) == len(kinds), [each["kind"] for each in built]
        valid(built)
        for manifest in built:
            spec = pod_spec(manifest)
            containers = spec["initContainers" if component == "sidecar" else "containers"]
            assert [each["name"] for each in containers] == [("first" if component == "sidecar" else "app"), "forbear"]
            assert containers[1]["image"] == "registry.example/forbear:1"
            assert len(spec["volumes"]) == 4
            annotated = manifest["kind"] == "Pod" or '"prometheus.io/port": "9464"' in json.dumps(manifest)
            assert annotated, f"{manifest['kind']} has no annotations for scrapers"
    return f"{len(kinds)} kinds, native and plain"


def check_plain() -> str:
    """What the Job without a native sidecar runs: it ends forbear, and its exit code stays its own."""
    job = yaml.safe_load((KUBERNETES / "examples/plain/job.yaml").read_text())
    shell, flag, script = pod_spec(job)["containers"][0]["command"]
    with tempfile.TemporaryDirectory() as name:
        config = Path(name) / "config.toml"
        # Nobody is at port 1, so the job's own call fails.
        config.write_text(
            'proxy.listen = "127.0.0.1:0"\nadmin.listen = "127.0.0.1:0"\n'
            'upstreams.github = { url = "http://127.0.0.1:1", max_wait = "10ms" }\n'
        )
        forbear = subprocess.Popen(
            [FORBEAR, "run", "-c", config], cwd=name, text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        try:
            for line in iter(forbear.stdout.readline, "ready\n"):
                listener, _, url = line.strip().rpartition(" ")
                script = script.replace(
                    {"proxy": "http://localhost:8080", "admin": "http://localhost:8081"}[listener], url
                )
            done = subprocess.run([shell, flag, script], text=True, capture_output=True, timeout=60)
            # 22: the answer was a failure, by --fail.
            assert done.returncode == 22, f"{done.returncode}: {done.stdout}{done.stderr}"
            forbear.stdout.read()
            assert forbear.wait(30) == 0
        finally:
            forbear.kill()
    return "22 of the job, 0 of forbear"


def check_chart() -> str:
    for version in VERSIONS:
        found = helm.lint(tools.CHART, EVERYTHING, strict=True, kube_version=f"v{version}")
        serious = [each for each in found["messages"] if each["severity"] > 1]
        assert not serious and not found["errors"], found
    assert [each["kind"] for each in render({})] == ["ConfigMap"]
    manifests = render(EVERYTHING)
    valid(manifests)
    kinds = {each["kind"]: each for each in manifests}
    assert set(kinds) == {"ConfigMap", "PodMonitor", "PrometheusRule"}, kinds.keys()
    good_configuration(next(each["data"]["config.toml"] for each in manifests if "config.toml" in each.get("data", {})))
    boards = next(each["data"] for each in manifests if "executive.json" in each.get("data", {}))
    assert {name: json.loads(text)["uid"] for name, text in boards.items()} == {
        f"{name}.json": f"forbear-{name}" for name in ("executive", "on-call", "debug")
    }
    # The rules are the same, but for the two values.
    told = (
        RULES.read_text()
        .replace("vector(0.01)", "vector(0.001)")
        .replace("deploy/runbook.md", "https://wiki.example/forbear")
    )
    assert kinds["PrometheusRule"]["spec"] == yaml.safe_load(told)
    with tempfile.TemporaryDirectory() as folder:
        helm.package(tools.CHART, destination=folder)
    return f"{len(manifests)} manifests"


WRONG_VALUES = [
    {"imgae": {}},
    {"image": {"repository": ""}},
    {"image": {"repository": "a", "pullPolicy": "Sometimes"}},
    {"image": {"repository": "a", "digest": "latest"}},
    {"config": "nothing"},
    {"resources": {"limits": {"memory": 64}}},
    {"podMonitor": {"enabled": "yes"}},
    {"rules": {"objective": 99}},
    {"stateSizeLimit": "much"},
    {"dashboards": {"labels": {"grafana_dashboard": 1}}},
]


def check_chart_schema() -> str:
    for values in WRONG_VALUES:
        try:
            render(values)
        except helm.HelmError:
            continue
        raise AssertionError(f"accepted: {values}")
    return f"{len(WRONG_VALUES)} wrong values refused"


APPLICATION = """
apiVersion: batch/v1
kind: Job
metadata: {name: a}
spec:
  template:
    metadata:
      labels:
        {{- include "forbear.podLabels" .Subcharts.forbear | nindent 8 }}
    spec:
      restartPolicy: Never
      initContainers:
        {{- include "forbear.sidecar" .Subcharts.forbear | nindent 8 }}
      containers: [{name: app, image: a}]
      volumes:
        {{- include "forbear.volumes" .Subcharts.forbear | nindent 8 }}
"""


def check_template() -> None:
    """Another chart gets the sidecar, and it is the one that the kustomize component gives."""
    with tempfile.TemporaryDirectory() as name:
        chart = Path(name) / "app"
        (chart / "templates").mkdir(parents=True)
        shutil.copytree(tools.CHART, chart / "charts/forbear")
        (chart / "Chart.yaml").write_text(
            json.dumps(
                {
                    "apiVersion": "v2",
                    "name": "app",
                    "version": "1.0.0",
                    "dependencies": [{"name": "forbear", "version": "*", "repository": ""}],
                }
            )
        )
        (chart / "templates/job.yaml").write_text(APPLICATION)
        rendered = helm.Chart.load(chart).render({"forbear": {"image": {"tag": "0.1.0"}}}, name="forbear")
    (job,) = documents(rendered["app/templates/job.yaml"])
    valid([job])
    by_chart = pod_spec(job)
    by_kustomize = pod_spec(next(each for each in kustomize(KUBERNETES / "examples") if each["kind"] == "Job"))
    sidecar = by_chart["initContainers"][0]
    assert sidecar.pop("imagePullPolicy") == "IfNotPresent"
    assert sidecar == by_kustomize["initContainers"][0]
    assert by_chart["volumes"] == by_kustomize["volumes"]


def check_dagster() -> None:
    """The pod of a run has what the component gives, by the chart's values as by the tag."""
    folder = KUBERNETES / "examples/dagster"
    tag = yaml.safe_load((folder / "tag.yaml").read_text())
    values = yaml.safe_load((folder / "values.yaml").read_text())["runLauncher"]["config"]["k8sRunLauncher"][
        "runK8sConfig"
    ]
    assert list(tag.values()) == list(values.values())
    spec = tag["pod_spec_config"] | {"containers": [{"name": "dagster", "image": "a", **tag["container_config"]}]}
    valid(
        [
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": "a", **tag["pod_template_spec_metadata"]},
                "spec": spec,
            }
        ]
    )


def main() -> int:
    # The chart has the rules and dashboards by symbolic links, and Helm tells of each one, each time.
    with tempfile.TemporaryDirectory() as name:
        tools.CHART = Path(shutil.copytree(tools.CHART, Path(name) / "forbear"))
        return check_all()


def check_all() -> int:
    scripts = [DEPLOY / "image.sh", ROOT / "tests/run.sh"]
    for name, test in [
        ("derived files are up to date", lambda: run(sys.executable, DEPLOY / "generate.py", "--check")),
        ("hadolint", lambda: run(TOOLS / "hadolint", ROOT / "Dockerfile")),
        ("shellcheck", lambda: run(TOOLS / "shellcheck", *scripts)),
        ("YAML that Go and Python read alike", files.check_yaml),
        ("alerts, their tests and the runbook", files.check_alerts),
        ("dashboards and the operator's resources by their published types", files.check_types),
        ("kustomize examples", check_kustomize),
        ("kustomize components", check_components),
        ("the plain Job's script", check_plain),
        ("the chart renders and lints", check_chart),
        ("the chart's schema", check_chart_schema),
        ("the chart's template in another chart", check_template),
        ("Dagster's values", check_dagster),
        ("compose", files.check_compose),
        ("systemd unit", files.check_systemd),
        ("versions agree", files.check_versions),
    ]:
        report.check(name, test)
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
