"""Where things are, and how the tools are called. The arguments of the program are those of manifests.py."""

import subprocess
import sys
import tempfile
from pathlib import Path

import helm_python as helm
import yaml

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
CHART = DEPLOY / "helm/forbear"
RULES = DEPLOY / "prometheus/forbear.rules.yml"
OPERATOR = "monitoring.coreos.com/v1"
TOOLS = Path(sys.executable).parent
FORBEAR, NODE_MODULES = (Path(argument).resolve() for argument in sys.argv[1:])


def run(*command: object, **more) -> str:
    done = subprocess.run([str(part) for part in command], text=True, capture_output=True, **more)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}"
    return done.stdout


def documents(text: str) -> list[dict]:
    return [each for each in yaml.safe_load_all(text) if each]


def kustomize(folder: Path) -> list[dict]:
    return documents(run(TOOLS / "kubectl", "kustomize", folder))


def good_configuration(text: str) -> None:
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
        file.write(text)
        file.flush()
        run(FORBEAR, "check", file.name)


def render(values: dict) -> list[dict]:
    return [
        each
        for text in helm.Chart.load(CHART).render(values, name="team").values()
        if not text.startswith("forbear's")
        for each in documents(text)
    ]


EVERYTHING = {
    "podMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
    "dashboards": {"enabled": True},
    "rules": {"enabled": True, "objective": 0.999, "runbookUrl": "https://wiki.example/forbear"},
}
