"""Clients that follow addresses which an API names: pages, and a session that moves to another host.

The API writes its own address into every page, as real ones do, and counts who comes without
forbear's `Via`: a client that is led past forbear fails its check, although it gets all of its pages.
"""

import base64
import json
import os
import tempfile
import threading
import time
import traceback
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import requests

PAGES = 50
# PyGithub goes on from the `url` of what it got; data that is kept should have the API's own.
PROFILE = """
extends = "github"
next_links = ["url", "*.url"]
"""
CONFIGURATION = """
[proxy]
listen = "127.0.0.1:0"
[admin]
listen = "127.0.0.1:0"
[state]
path = ":memory:"
[upstreams.plain]
url = "{url}"
[upstreams.github]
url = "{url}"
profile = "github"
[upstreams.pygithub]
url = "{url}"
profile = "./pygithub.toml"
[upstreams.zendesk]
url = "{url}"
profile = "zendesk"
[upstreams.bluesky]
url = "{url}"
profile = "bluesky"
"""


class Api:
    """The running API, and the requests that it got."""

    def __init__(self) -> None:
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.api = self
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.targets: list[str] = []
        self.direct: list[str] = []
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Stops it."""
        self.server.shutdown()
        self.server.server_close()


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        target = urlsplit(self.path)
        query = parse_qs(target.query)
        page = int(query.get("page", query.get("cursor", ["1"]))[0])
        url = self.note()
        following = f"{url}{target.path}?page={page + 1}" if page < PAGES else None
        fields = {"Link": f'<{following}>; rel="next", <{url}{target.path}?page={PAGES}>; rel="last"'}
        match target.path:
            case "/items":
                self.answer([{"id": page}], fields if following else {})
            case "/tickets":
                self.answer({"tickets": [{"id": page}], "next_page": following})
            case "/repositories" | "/repos/an/owner/issues":
                one = {"id": page, "number": page, "full_name": f"an/{page}", "url": f"{url}/one/{page}"}
                self.answer([one], fields if following else {})
            case "/repos/an/owner":
                self.answer({"id": 1, "full_name": "an/owner", "url": f"{url}/repos/an/owner"})
            case "/xrpc/app.bsky.actor.getProfile":
                self.answer({"did": "did:plc:abc", "handle": "somebody.example"})
            case "/xrpc/app.bsky.feed.getTimeline":
                self.answer({"feed": [], **({"cursor": str(page + 1)} if following else {})})
            case _:
                self.answer({"error": "NotFound", "message": self.path}, status=404)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", "0")))
        self.note()
        pds = {
            "id": "#atproto_pds",
            "type": "AtprotoPersonalDataServer",
            "serviceEndpoint": "https://morel.us-east.host.bsky.network",
        }
        self.answer({
            "did": "did:plc:abc",
            "handle": "somebody.example",
            "accessJwt": token(),
            "refreshJwt": token(),
            "didDoc": {"id": "did:plc:abc", "service": [pds]},
        })

    def note(self) -> str:
        """Remembers the request; the address of the API as it writes it."""
        api = self.server.api
        api.targets.append(self.path)
        if "forbear" not in self.headers.get("Via", ""):
            api.direct.append(self.path)
        return api.url

    def answer(self, value: object, fields: dict[str, str] | None = None, status: int = 200) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        head = {"Content-Type": "application/json", "Content-Length": str(len(body))}
        for name, text in {**head, **(fields or {})}.items():
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


def token() -> str:
    """A web token that nobody signed, good for an hour."""
    parts = [{"alg": "none"}, {"exp": int(time.time()) + 3600, "scope": "x"}, {}]
    encoded = (base64.urlsafe_b64encode(json.dumps(part).encode()) for part in parts)
    return ".".join(part.decode().rstrip("=") for part in encoded)


def with_requests(url: str) -> list[int]:
    ids, following = [], f"{url}/plain/items"
    while following:
        answer = requests.get(following, timeout=20)
        ids += [item["id"] for item in answer.json()]
        following = answer.links.get("next", {}).get("url")
    return ids


def github(base_url: str):
    from github import Auth, Github

    # Its own pauses between requests are for the real one.
    return Github(base_url=base_url, auth=Auth.Token("none"), retry=None, seconds_between_requests=0)


def with_pygithub(url: str) -> list[int]:
    return [repository.id for repository in github(f"{url}/github").get_repos()]


def with_pygithub_objects(url: str) -> list[int]:
    repository = github(f"{url}/pygithub").get_repo("an/owner")
    return [issue.number for issue in repository.get_issues()]


def with_dlt(path: str, paginator) -> list[int]:
    from dlt.sources.helpers.rest_client import RESTClient

    base, _, path = path.rpartition("/")
    client = RESTClient(base_url=base, paginator=paginator)
    return [item["id"] for page in client.paginate(f"/{path}") for item in page]


def with_dlt_links(url: str) -> list[int]:
    from dlt.sources.helpers.rest_client.paginators import HeaderLinkPaginator

    return with_dlt(f"{url}/plain/items", HeaderLinkPaginator())


def with_dlt_json(url: str) -> list[int]:
    from dlt.sources.helpers.rest_client.paginators import JSONLinkPaginator

    return with_dlt(f"{url}/zendesk/tickets", JSONLinkPaginator(next_url_path="next_page"))


def with_atproto(url: str) -> list[int]:
    from atproto import Client

    client = Client(base_url=f"{url}/bluesky")
    client.login("somebody.example", "none")
    pages, cursor = [], None
    while True:
        timeline = client.get_timeline(cursor=cursor)
        pages.append(len(pages) + 1)
        cursor = timeline.cursor
        if cursor is None:
            return pages


CHECKS = [
    ("requests", "follows Link through all pages", with_requests),
    ("PyGithub", "follows Link through all pages", with_pygithub),
    ("PyGithub", "goes on from the url of an object", with_pygithub_objects),
    ("dlt", "follows Link through all pages", with_dlt_links),
    ("dlt", "follows a URL in JSON through all pages", with_dlt_json),
    ("atproto", "logs in and stays, although the session names another host", with_atproto),
]


def run(start, tell) -> None:
    """Runs every check; `start` starts forbear in a folder, `tell` takes a name and what failed."""
    os.environ["RUNTIME__DLTHUB_TELEMETRY"] = "false"
    with tempfile.TemporaryDirectory() as name:
        api = Api()
        (Path(name) / "pygithub.toml").write_text(PROFILE)
        forbear = start(Path(name), api, CONFIGURATION)
        try:
            for client, what, check in CHECKS:
                api.targets.clear()
                api.direct.clear()
                try:
                    pages = check(forbear.proxy)
                    assert pages == list(range(1, PAGES + 1)), pages
                    assert len(api.targets) >= PAGES, api.targets
                    assert api.direct == [], f"these came past forbear: {api.direct}"
                    problem = None
                except Exception:
                    problem = traceback.format_exc()
                tell(f"{client:10} {what}", problem)
        finally:
            forbear.close()
            api.close()
