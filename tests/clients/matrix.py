"""Unmodified clients through forbear to a real HTTPS API: `matrix.py path/to/forbear [python-with-airbyte-cdk]`.

forbear runs with the configuration of the README, and an authority to trust; listeners are on free
ports. Each check is one line; the last line counts them. The exit code is 0 if all passed.
"""

import functools
import json
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import clients
import pages
import sdks
import vendors
from api import PAGES, RETRY_AFTER, Api, make_certificates

import sidecar

CONFIGURATION = """
[proxy]
listen = "127.0.0.1:0"
[admin]
listen = "127.0.0.1:0"
[upstreams.api]
url = "{url}"
ca_file = "ca.pem"
hosts = ["api.test"]
"""
# Each SDK meets its vendor's own profile, and no quota that another one used up.
PROFILES = {"dlt": "generic", "airbyte": "generic", "pipeline": "github", "moving": "bluesky"}
for vendor in vendors.REFUSED:
    CONFIGURATION += f"""
[upstreams.{vendor}]
url = "{{url}}/vendors/{vendor}"
ca_file = "ca.pem"
profile = "{PROFILES.get(vendor, vendor)}"
"""
# Text that no client and no proxy must touch: quotes, line ends, more than ASCII.
BODY = json.dumps({"text": "ünïcode\r\n\"quoted\"\\", "list": list(range(500))}).encode()


class Forbear(sidecar.Forbear):
    """The built program, in front of the API and of each vendor's."""

    def __init__(self, binary: Path, folder: Path, api: Api, configuration: str = CONFIGURATION) -> None:
        super().__init__(binary, folder, configuration.format(url=api.url))
        self.url = f"{self.proxy}/api"


def check_get(client, forbear: Forbear, api: Api) -> None:
    answer = client.get(f"{forbear.url}/get/{client.name[0]}?q=a%20b&q=c")
    host = api.url.removeprefix("https://")
    assert answer.status == 200, answer
    assert answer.json() == {"path": f"/get/{client.name[0]}?q=a%20b&q=c", "host": host}, answer
    assert answer.fields["forbear-attempts"] == "1", answer.fields
    assert answer.fields["forbear-decision"] == "pass", answer.fields


def check_post(client, forbear: Forbear, _: Api) -> None:
    answer = client.post(f"{forbear.url}/echo", BODY)
    assert (answer.status, answer.body) == (200, BODY), answer


def limited(path: str, send: Callable[[str], clients.Answer], forbear: Forbear, api: Api) -> None:
    started = time.monotonic()
    answer = send(f"{forbear.url}{path}")
    took = time.monotonic() - started
    assert answer.status == 200, answer
    assert answer.fields["forbear-attempts"] == "2", answer.fields
    assert answer.fields["forbear-decision"] == "retried", answer.fields
    assert api.requests(path) == 2, "one refusal, one repeat"
    assert took >= RETRY_AFTER, f"earlier than told: {took}"


def check_limited_get(client, forbear: Forbear, api: Api) -> None:
    limited(f"/limited/get-{client.name[:2]}", client.get, forbear, api)


def check_limited_post(client, forbear: Forbear, api: Api) -> None:
    def send(url: str) -> clients.Answer:
        answer = client.post(url, BODY)
        assert answer.body == BODY, "the repeat has the same body"
        return answer

    limited(f"/limited/post-{client.name[:2]}", send, forbear, api)


def check_stream(client, forbear: Forbear, api: Api) -> None:
    path = f"/stream/{client.name[:2]}"
    whole = client.stream(f"{forbear.url}{path}", api.heard(path).set)
    assert whole == b"first\nsecond\n", whole


def check_pages(client, forbear: Forbear, _: Api) -> None:
    items, page = [], 1
    while page is not None:
        answer = client.get(f"{forbear.url}/pages?page={page}").json()
        items += answer["items"]
        page = answer["next"]
    assert items == [10, 11, 20, 21, 30, 31] and PAGES == 3, items


def check_gzip(client, forbear: Forbear, _: Api) -> None:
    answer = client.get(f"{forbear.url}/gzip")
    assert answer.json() == {"packed": "x" * 1000}, answer


def check_redirect(client, forbear: Forbear, _: Api) -> None:
    answer = client.get(f"{forbear.url}/redirect/one")
    assert (answer.status, answer.json()["path"]) == (200, "/get/redirected"), answer


def check_failure(client, forbear: Forbear, _: Api) -> None:
    answer = client.get(f"{forbear.url}/missing")
    assert (answer.status, answer.json()) == (404, {"error": "no such thing"}), answer
    assert answer.fields["forbear-verdict"] == "permanent", answer.fields


def check_via(client, forbear: Forbear, api: Api) -> None:
    answer = client.via(forbear.proxy, "http://api.test/get/via")
    assert (answer.status, answer.json()["path"]) == (200, "/get/via"), answer
    assert answer.json()["host"] == api.url.removeprefix("https://"), answer


def check_sdk(name: str, forbear: Forbear, api: Api) -> None:
    call, vendor, path = sdks.ALL[name]
    path = f"/vendors/{vendor}{path}"
    found = call(f"{forbear.proxy}/{vendor}", api.heard(path).set)
    streamed = list(vendors.STREAMED)
    assert found == (streamed if name == "openai" else [f"item-{n}" for n in range(vendors.ITEMS)]), found
    # The SDK might have repeated the request itself: only forbear may have seen the refusal.
    attempts = forbear.counted("forbear_upstream_attempts_total", vendor)
    answers = forbear.counted("forbear_requests_total", vendor)
    assert attempts["429"] == 1, attempts
    assert set(answers) == {"200"} and answers["200"] == attempts["200"], f"{answers} of {attempts}"


# Refusals come last: after one, forbear sends to that API with care for a while.
CHECKS = [
    ("GET arrives whole and comes back as JSON", check_get),
    ("POST comes back byte for byte", check_post),
    ("a stream arrives piece by piece", check_stream),
    ("pages are followed to the last", check_pages),
    ("a compressed body is unpacked by the client alone", check_gzip),
    ("a relative redirect stays behind forbear", check_redirect),
    ("the API's own failure arrives as it is", check_failure),
    ("an http:// URL through the proxy setting reaches the API over TLS", check_via),
    ("a 429 on GET is waited out, and the client sees 200", check_limited_get),
    ("a 429 on POST is waited out, and the body is sent again", check_limited_post),
]


def main(binary: Path, airbyte: Path | None) -> int:
    # The proxy of whoever runs this is none of ours.
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        os.environ.pop(name, None)
        os.environ.pop(name.upper(), None)
    passed = failed = 0

    def tell(name: str, problem: str | None) -> None:
        nonlocal passed, failed
        passed, failed = (passed + 1, failed) if problem is None else (passed, failed + 1)
        print(f"{'ok  ' if problem is None else 'FAIL'} {name}", flush=True)
        if problem is not None:
            print(problem, flush=True)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_certificates(folder)
        api = Api(folder)
        forbear = Forbear(binary, folder, api)
        try:
            for what, check in CHECKS:
                for client in clients.ALL:
                    if check is check_via and not hasattr(client, "via"):
                        continue  # Node's fetch has no proxy setting before version 24.
                    try:
                        check(client, forbear, api)
                        problem = None
                    except Exception:
                        problem = traceback.format_exc()
                    tell(f"{client.name:10} {what}", problem)
            if airbyte is None:
                print("skipped: airbyte-cdk, which is in no environment that was named")
            else:
                sdks.ALL["airbyte-cdk"] = (sdks.airbyte(airbyte), "airbyte", "/orders")

            def problem_of(name: str) -> str | None:
                try:
                    check_sdk(name, forbear, api)
                except Exception:
                    return traceback.format_exc()
                return None

            # Side by side: each has its own upstream, and mostly waits.
            with ThreadPoolExecutor() as pool:
                problems = zip(sdks.ALL, pool.map(problem_of, sdks.ALL), strict=True)
            for name, problem in problems:
                tell(f"{name:11} lists or streams all, and sees nothing of a 429 in between", problem)
        finally:
            code = forbear.close()
            api.close()
        tell("forbear ends with 0 on SIGTERM", None if code == 0 else f"it ended with {code}")
    pages.run(functools.partial(Forbear, binary), tell)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve(), Path(sys.argv[2]).absolute() if sys.argv[2:] else None))
