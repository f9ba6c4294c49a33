"""Bluesky feeds, an asset partition for each account: `forbear run -c config.toml -- dagster dev -f feeds.py`.

The client has no retry and the assets have no concurrency key: what the API permits stands in config.toml, once.
"""

import os
from pathlib import Path

import dagster as dg
import httpx
from atproto import Client, Request, models
from forbear_dagster import checked, headers

ACCOUNTS = dg.DynamicPartitionsDefinition(name="accounts")
# Longer than `max_wait` in config.toml: forbear answers before this client gives up.
TIMEOUT = 330


def hand_off(response: httpx.Response) -> None:
    """A failure is read and told to Dagster before the SDK makes an exception of its own of it."""
    if response.status_code >= 400:
        response.read()
        checked(response)


class Bluesky(dg.ConfigurableResource):
    """The API, behind forbear. The session is kept: forbear spaces logins, and cannot save one."""

    base_url: str
    login: str
    password: str
    session_file: str = "session.txt"

    def client(self, context: dg.AssetExecutionContext) -> Client:
        request = Request(timeout=TIMEOUT, headers=headers(context), event_hooks={"response": [hand_off]})
        client = Client(self.base_url, request=request)
        kept = Path(self.session_file)
        if kept.exists():
            client.login(session_string=kept.read_text(), fetch_bsky_profile=False)
        else:
            client.login(self.login, self.password, fetch_bsky_profile=False)
            kept.write_text(client.export_session_string())
        # With a session the SDK talks to the account's own server, past forbear.
        client.update_base_url(self.base_url)
        return client


class ListConfig(dg.Config):
    """Whose feeds."""

    uri: str


@dg.asset
def accounts(context: dg.AssetExecutionContext, bluesky: Bluesky, config: ListConfig) -> dg.MaterializeResult:
    """The members of a list, each of them a partition of `feed`."""
    client, members, cursor = bluesky.client(context), [], None
    while True:
        page = client.app.bsky.graph.get_list({"list": config.uri, "cursor": cursor, "limit": 100})
        members += [item.subject.did for item in page.items]
        cursor = page.cursor
        if not cursor:
            break
    context.instance.add_dynamic_partitions("accounts", members)
    return dg.MaterializeResult(metadata={"members": len(members)})


@dg.asset(partitions_def=ACCOUNTS, deps=[accounts])
def feed(context: dg.AssetExecutionContext, bluesky: Bluesky) -> dg.MaterializeResult:
    """Everything that one account posted."""
    client, cursor = bluesky.client(context), None
    posts: list[models.AppBskyFeedDefs.FeedViewPost] = []
    while True:
        page = client.get_author_feed(context.partition_key, cursor=cursor, limit=100)
        posts += page.feed
        cursor = page.cursor
        if not cursor:
            break
    return dg.MaterializeResult(metadata={"posts": len(posts)})


defs = dg.Definitions(
    assets=[accounts, feed],
    resources={
        "bluesky": Bluesky(
            base_url=os.environ.get("FORBEAR_URL", "http://localhost:8080") + "/bluesky",
            login=dg.EnvVar("BSKY_LOGIN"),
            password=dg.EnvVar("BSKY_APP_PASSWORD"),
        )
    },
)
