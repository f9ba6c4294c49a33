"""SDKs as their users write them: nothing is set but the base URL, not even the SDK's own retries.

Each function lists what the vendor has, or reads its stream, and returns the texts. `base` is the upstream at
forbear. What each one needs of a base URL is in the README, under "Pointing clients at it".
"""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import atproto
import github
import openai
import slack_sdk
import stripe
from dlt.sources.rest_api import rest_api_source

sys.path.append(str(Path(__file__).resolve().parents[2] / "deploy/examples/dlt"))

import pipeline  # noqa: E402


def pygithub(base: str, _: Callable[[], None]) -> list[str]:
    client = github.Github(base_url=base, auth=github.Auth.Token("token"))
    return [repository.name for repository in client.get_user().get_repos()]


def stripe_sdk(base: str, _: Callable[[], None]) -> list[str]:
    client = stripe.StripeClient("key", base_addresses={"api": base})
    return [customer.name for customer in client.v1.customers.list().auto_paging_iter()]


def openai_sdk(base: str, heard: Callable[[], None]) -> list[str]:
    client = openai.OpenAI(base_url=f"{base}/v1", api_key="key")
    stream = client.chat.completions.create(model="m", messages=[{"role": "user", "content": "?"}], stream=True)
    texts = []
    for chunk in stream:
        texts.append(chunk.choices[0].delta.content)
        heard()
    return texts


def slack(base: str, _: Callable[[], None]) -> list[str]:
    client = slack_sdk.WebClient(base_url=f"{base}/api/", token="token")
    return [channel["name"] for page in client.conversations_list(limit=2) for channel in page["channels"]]


def bluesky(base: str, _: Callable[[], None]) -> list[str]:
    client = atproto.Client(base_url=base)
    client.login("someone.test", "password")
    texts, cursor = [], None
    while True:
        page = client.get_author_feed(actor="someone.test", cursor=cursor, limit=2)
        texts += [item.post.record.text for item in page.feed]
        cursor = page.cursor
        if not cursor:
            return texts


def dlt(base: str, _: Callable[[], None]) -> list[str]:
    paginator = {"type": "page_number", "base_page": 1, "total_path": None}
    orders = {"name": "orders", "endpoint": {"path": "orders", "data_selector": "orders"}}
    source = rest_api_source({"client": {"base_url": base, "paginator": paginator}, "resources": [orders]})
    return [order["name"] for order in source]


def dlt_example(base: str, _: Callable[[], None]) -> list[str]:
    return [issue["title"] for issue in pipeline.issues(base)]


def airbyte(python: Path) -> Callable[[str, Callable[[], None]], list[str]]:
    """airbyte-cdk, which wants versions of its own, by the Python of another environment."""

    def run(base: str, _: Callable[[], None]) -> list[str]:
        command = [python, Path(__file__).with_name("airbyte.py"), base]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return run


# What is called, by name; the upstream, which is the vendor's name; and the path that is refused at first.
ALL = {
    "PyGithub": (pygithub, "github", "/user/repos"),
    "stripe": (stripe_sdk, "stripe", "/v1/customers"),
    "openai": (openai_sdk, "openai", "/v1/chat/completions"),
    "slack_sdk": (slack, "slack", "/api/conversations.list"),
    "atproto": (bluesky, "bluesky", "/xrpc/app.bsky.feed.getAuthorFeed"),
    "dlt": (dlt, "dlt", "/orders"),
    "dlt example": (dlt_example, "pipeline", "/repos/dlt-hub/dlt/issues"),
}
