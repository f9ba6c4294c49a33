"""A real Prometheus scrapes a real forbear under load: `observe.py path/to/forbear`.

Every query of the dashboards, every rule and every metric is held against what is really there, and
the number of series against callers who choose paths, keys and fields at will. Needs Prometheus,
promtool and promql-parser; everything listens on loopback, and nothing outlives this.
"""

import http.client
import json
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import yaml

import promql
import report

ROOT = Path(__file__).resolve().parents[2]
RULES = ROOT / "deploy/prometheus/forbear.rules.yml"
DASHBOARDS = sorted((ROOT / "deploy/grafana").glob("*.json"))
# What the scrape configuration adds, as Kubernetes would.
TARGET = {"namespace": "jobs", "pod": "job-1"}
# Not from forbear: Prometheus itself, and kube-state-metrics.
OTHERS = {"ALERTS": {"alertname", "alertstate"}}
# From the first request to the moment at which a query must have data.
DATA_TIME_MAX = 60
HOSTILE_REQUESTS = 10_000

CONFIGURATION = """
[proxy]
listen = "127.0.0.1:0"
workers = 1
[admin]
listen = "127.0.0.1:0"
[metrics]
listen = "127.0.0.1:0"
[log]
access = "off"
[limits]
queue_max = 50
[keys.ingestion]
in_flight_max = 1
[keys."tenant:*"]
in_flight_max = 4
[upstreams.api]
url = "{api}"
queue_max = 2
in_flight_max = 4
breaker.consecutive_failures = 0
breaker.failure_rate = "off"
retry.budget_floor_per_minute = 6000
retry.backoff_base = "10ms"
[[upstreams.api.routes]]
name = "hold"
match = "GET /hold/**"
key = "ingestion"
# The same API, where nothing that it did before slows anybody down.
[upstreams.calm]
url = "{api}"
[upstreams.down]
url = "http://127.0.0.1:1"
max_wait = "1s"
breaker.open_for = "3s"
breaker.open_for_max = "3s"
"""


class Api(BaseHTTPRequestHandler):
    """The first part of a path says what it does."""

    protocol_version = "HTTP/1.1"
    # Head and body in one piece, or each answer would wait for an acknowledgement.
    wbufsize = -1
    count = 0

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("content-length") or 0))
        what = self.path.split("/")[1]
        Api.count += 1
        turn = Api.count % 2
        status = {"throttled": 429, "ill": 503, "forbidden": 401, "broken": 500}.get(what, 200)
        if what in ("throttled", "ill", "broken") and turn:
            status = 200
        if what == "hold":
            time.sleep(0.05)
        if what == "reset":
            self.close_connection = True
            return
        self.send_response(status)
        self.send_header("content-length", "2")
        for name, value in (("limit", 5000), ("remaining", 4000), ("reset", 600)):
            self.send_header(f"x-ratelimit-{name}", str(value))
        if status == 429:
            self.send_header("retry-after-ms", "20")
        self.end_headers()
        self.wfile.write(b"ok")

    do_POST = do_PUT = do_DELETE = do_GET

    def log_message(self, *_) -> None:
        pass


class Running:
    """forbear and Prometheus, the API and a steady load, until `close`."""

    def __init__(self, binary: Path, folder: Path) -> None:
        self.folder = folder
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Api)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        (folder / "config.toml").write_text(CONFIGURATION.format(api=f"http://127.0.0.1:{self.server.server_port}"))
        self.log = open(folder / "forbear.log", "wb")
        self.forbear = subprocess.Popen(
            [binary, "run", "-c", folder / "config.toml"],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
        )
        listeners = {}
        for line in iter(self.forbear.stdout.readline, "ready\n"):
            if not line:
                raise SystemExit(f"forbear did not start:\n{(folder / 'forbear.log').read_text()}")
            name, _, address = line.strip().rpartition(" ")
            listeners[name] = address.removeprefix("http://")
        threading.Thread(target=self.forbear.stdout.read, daemon=True).start()
        self.proxy, self.metrics = listeners["proxy"], listeners["metrics"]
        self.prometheus = self._prometheus()
        self.stopping = threading.Event()
        self.loads = [threading.Thread(target=self._load, args=(n,), daemon=True) for n in range(6)]
        for load in self.loads:
            load.start()

    def _prometheus(self) -> subprocess.Popen:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.asked = f"127.0.0.1:{free.getsockname()[1]}"
        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(RULES)],
            "scrape_configs": [
                {"job_name": "forbear", "static_configs": [{"targets": [self.metrics], "labels": TARGET}]}
            ],
        }
        (self.folder / "prometheus.yml").write_text(json.dumps(config))
        return subprocess.Popen(
            [
                "prometheus",
                f"--config.file={self.folder / 'prometheus.yml'}",
                f"--web.listen-address={self.asked}",
                f"--storage.tsdb.path={self.folder / 'data'}",
                "--log.level=error",
            ],
            stdout=self.log,
            stderr=self.log,
        )

    def _load(self, seed: int) -> None:
        """What a job does, over and over: some of everything, so that every counter moves."""
        paths = [
            "/api/page",
            "/api/throttled",
            "/api/ill",
            "/api/forbidden",
            "/api/broken",
            "/api/reset",
            "/api/hold/a",
            "/api/hold/b",
            "/api/hold/c",
            "/down/x",
            "/nowhere/x",
        ]
        connection = http.client.HTTPConnection(self.proxy, timeout=30)
        turn = seed
        while not self.stopping.is_set():
            turn += 1
            method = ("GET", "POST", "PUT", "DELETE")[turn % 4]
            try:
                connection.request(
                    method,
                    paths[turn % len(paths)],
                    body=b"{}" if method != "GET" else None,
                    headers={"forbear-key": f"tenant:{turn % 3}", "forbear-deadline": "20s"},
                )
                connection.getresponse().read()
            except (http.client.HTTPException, OSError):
                connection.close()
            time.sleep(0.01)

    def scrape(self) -> str:
        with urllib.request.urlopen(f"http://{self.metrics}/metrics", timeout=10) as answer:
            return answer.read().decode()

    def ask(self, path: str, **fields: str) -> object:
        url = f"http://{self.asked}/api/v1/{path}?{urllib.parse.urlencode(fields)}"
        try:
            with urllib.request.urlopen(url, timeout=20) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as refused:
            raise AssertionError(f"{fields}: {refused.read().decode()}") from None

    def quiet(self) -> None:
        self.stopping.set()
        for load in self.loads:
            load.join(30)

    def close(self) -> None:
        self.quiet()
        for process in (self.prometheus, self.forbear):
            process.terminate()
        for process in (self.prometheus, self.forbear):
            process.wait(30)
        self.server.shutdown()
        self.log.close()


def queries(dashboard: Path) -> list[tuple[str, str, str]]:
    """Panel or annotation, legend and expression of all that it asks for."""
    content = json.loads(dashboard.read_text())
    asked = [
        (panel["title"], target["legendFormat"], target["expr"])
        for panel in content["panels"]
        for target in panel.get("targets", [])
    ]
    asked += [(each["name"], each["titleFormat"], each["target"]["expr"]) for each in content["annotations"]["list"]]
    for each in content["templating"]["list"]:
        if called := re.fullmatch(r"label_values\((.+), (\w+)\)", each["query"]):
            asked.append((f"variable {each['name']}", "{{%s}}" % called[2], called[1]))
    return asked


def has_data(running: Running, legend: str, expr: str) -> None:
    """At least one number, with all labels that the legend names."""
    wanted = set(re.findall(r"{{(\w+)}}", legend))
    until = time.monotonic() + DATA_TIME_MAX
    while True:
        result = running.ask("query", query=promql.filled(expr))["result"]
        good = [each for each in result if each["value"][1] != "NaN" and wanted <= each["metric"].keys()]
        if good:
            return
        assert time.monotonic() < until, f"no data: {promql.filled(expr)}\ngot {result}"
        time.sleep(1)


def check_dashboard(running: Running, dashboard: Path) -> str:
    asked = queries(dashboard)
    for panel, legend, expr in asked:
        try:
            has_data(running, legend, expr)
        except AssertionError as problem:
            raise AssertionError(f"{panel}: {problem}") from None
    return f"{len(asked)} queries return data"


def rules() -> list[dict]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def families(exposition: str) -> dict[str, set[str]]:
    """Each metric, as it is asked for, with the labels that any of its series has."""
    found: dict[str, set[str]] = {}
    for name, labels in re.findall(r"^([a-z_]+)(?:{(.*)})? ", exposition, re.MULTILINE):
        found.setdefault(name, set()).update(re.findall(r'(\w+)="', labels))
    return found


def check_names(running: Running) -> str:
    """No metric and no label is made up, and none of forbear's metrics goes unused."""
    exposed = families(running.scrape())
    known = {name: labels | TARGET.keys() | {"job", "instance"} for name, labels in exposed.items()}
    known |= OTHERS
    for rule in rules():
        if "record" in rule:
            known[rule["record"]] = {"namespace", "upstream"}
    used: set[str] = set()
    expressions = [expr for dashboard in DASHBOARDS for _, _, expr in queries(dashboard)]
    for expr in expressions + [rule["expr"] for rule in rules()]:
        for metric, labels in promql.metrics(promql.filled(expr)).items():
            used.add(re.sub("_(bucket|sum|count)$", "", metric))
            assert metric in known, f"no such metric: {metric} in {expr}"
            assert labels <= known[metric], f"{metric} has no label {labels - known[metric]}: {expr}"
    ours = {re.sub("_(bucket|sum|count)$", "", name) for name in exposed if name.startswith("forbear_")}
    assert ours <= used, f"nobody looks at {ours - used}"
    return f"{len(used)} metrics asked for, all {len(ours)} of forbear's among them"


def check_rules(running: Running) -> str:
    until = time.monotonic() + DATA_TIME_MAX
    while True:
        loaded = [rule for group in running.ask("rules")["groups"] for rule in group["rules"]]
        if all(rule["health"] == "ok" for rule in loaded) or time.monotonic() > until:
            break
        time.sleep(1)
    bad = [f"{rule['name']}: {rule.get('lastError')}" for rule in loaded if rule["health"] != "ok"]
    assert len(loaded) == len(rules()) and not bad, bad
    return f"{len(loaded)} rules evaluated"


def check_exposition(running: Running) -> None:
    found = subprocess.run(["promtool", "check", "metrics"], input=running.scrape(), text=True, capture_output=True)
    assert found.returncode == 0 and not found.stdout + found.stderr, found.stdout + found.stderr


def check_series(running: Running) -> str:
    """Callers choose paths, keys and fields; each kind of request is made once before the count."""
    lock, numbers = threading.Lock(), iter(range(HOSTILE_REQUESTS))

    def send(connection: http.client.HTTPConnection, n: str) -> None:
        connection.request(
            "GET",
            f"/calm/{n}/{n}?{n}={n}",
            headers={
                "forbear-key": f"tenant:{n}",
                "forbear-run": f"run-{n}",
                "forbear-flow": f"flow-{n}",
                f"x-{n}": n,
                "user-agent": n,
                "traceparent": n,
            },
        )
        connection.getresponse().read()

    def hostile() -> None:
        connection = http.client.HTTPConnection(running.proxy, timeout=30)
        while True:
            with lock:
                n = next(numbers, None)
            if n is None:
                return
            send(connection, f"z{n}")

    first = http.client.HTTPConnection(running.proxy, timeout=30)
    send(first, "first")
    before = running.scrape()
    threads = [threading.Thread(target=hostile) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    after = running.scrape()
    names = [
        {line.rpartition(" ")[0] for line in text.splitlines() if not line.startswith("#")} for text in (before, after)
    ]
    assert names[0] == names[1], f"new series: {sorted(names[1] ^ names[0])[:10]}"

    def total(text: str) -> float:
        return sum(float(n) for n in re.findall(r"^forbear_requests_total{.* (\S+)$", text, re.MULTILINE))

    grown = total(after) - total(before)
    assert grown == HOSTILE_REQUESTS, f"{grown} of {HOSTILE_REQUESTS} requests were counted"
    return f"{len(names[1])} series before and after {HOSTILE_REQUESTS} distinct paths, keys and fields"


def main(binary: Path) -> int:
    with tempfile.TemporaryDirectory() as name:
        running = Running(binary, Path(name))
        try:
            time.sleep(5)  # Only so that fewer queries have to be asked twice.
            for dashboard in DASHBOARDS:
                report.check(f"dashboard {dashboard.stem}", lambda: check_dashboard(running, dashboard))
            report.check("rules in a real Prometheus", lambda: check_rules(running))
            report.check("metrics and labels of dashboards and rules", lambda: check_names(running))
            running.quiet()
            report.check("promtool check metrics has no finding", lambda: check_exposition(running))
            report.check("series", lambda: check_series(running))
        finally:
            running.close()
    return report.finish()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve()))
