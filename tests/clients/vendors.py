"""What the APIs of well-known SDKs say, in the least JSON that each SDK takes.

`/vendors/<name>/…` is that vendor's API. Each one refuses the first request for its listing, or for its
stream, with 429 and `Retry-After`; its pages come two items at a time, by the vendor's own way of turning them.
"""

import base64
import json
import time
from collections.abc import Iterator

ITEMS = 5
PER_PAGE = 2
ISSUES = 103
STREAMED = ("Wait ", "as told.")
# Each vendor's refusal: the status says it, the words are the vendor's.
REFUSED = {
    "github": {"message": "You have exceeded a secondary rate limit", "documentation_url": ""},
    "stripe": {"error": {"type": "invalid_request_error", "code": "rate_limit", "message": "Too many requests"}},
    "openai": {"error": {"type": "requests", "code": "rate_limit_exceeded", "message": "Too many requests"}},
    "slack": {"ok": False, "error": "ratelimited"},
    "bluesky": {"error": "RateLimitExceeded", "message": "Rate Limit Exceeded"},
    # Sources that people write for an API of their own.
    "dlt": {"error": "too fast"},
    "airbyte": {"error": "too fast"},
    # Those that the examples in deploy/ are written for, once more.
    "pipeline": {"message": "You have exceeded a secondary rate limit", "documentation_url": ""},
    "moving": {"error": "RateLimitExceeded", "message": "Rate Limit Exceeded"},
}
# Requests that are let through at once: what an SDK does before the listing.
PREPARES = ("/rate_limit", "/xrpc/com.atproto.server.createSession", "/xrpc/app.bsky.actor.getProfile")
DID = "did:plc:abcdefghijklmnopqrstuvwx"
CID = "bafyreidfayvfuwqa7qlnopdjiqrxzs6blmoeu4rujcjtnci5beludirz2a"
DAY = "2026-01-01T00:00:00Z"
SOMEONE = {"did": DID, "handle": "someone.test"}
# Where the SDK goes after a login, if nobody holds it: to a port on which nobody listens.
MOVED = {
    "@context": ["https://www.w3.org/ns/did/v1"],
    "id": DID,
    "service": [
        {"id": "#atproto_pds", "type": "AtprotoPersonalDataServer", "serviceEndpoint": "http://127.0.0.1:9"},
    ],
}


def refusal(vendor: str, path: str) -> dict | None:
    """What the vendor says to the first request for this path; `None` if it is no listing."""
    return None if path in PREPARES else REFUSED[vendor]


def answer(vendor: str, path: str, query: dict[str, str]) -> dict | list:
    """The vendor's answer; `query` has the fields of the target and of a form."""
    match vendor, path:
        case "github", "/user/repos":
            return [{"id": number, "name": f"item-{number}"} for number in range(ITEMS)]
        case "github" | "pipeline", _ if path.endswith("/issues"):
            numbers = range(ISSUES if vendor == "github" else ITEMS)
            first = (int(query["page"]) - 1) * int(query["per_page"])
            shown = numbers[first : first + int(query["per_page"])]
            return [{"id": number, "title": f"item-{number}"} for number in shown]
        case "github", "/rate_limit":
            return {"resources": {"core": {"limit": 5000, "remaining": 4999}}}
        case "stripe", "/v1/customers":
            items, more = page(query.get("starting_after", "").removeprefix("cus_"))
            data = [{"id": f"cus_{number}", "object": "customer", "name": f"item-{number}"} for number in items]
            return {"object": "list", "url": "/v1/customers", "has_more": more, "data": data}
        case "slack", "/api/conversations.list":
            items, more = page(query.get("cursor", ""))
            channels = [{"id": f"C{number}", "name": f"item-{number}"} for number in items]
            cursor = str(items[-1]) if more else ""
            return {"ok": True, "channels": channels, "response_metadata": {"next_cursor": cursor}}
        case "bluesky" | "moving", "/xrpc/com.atproto.server.createSession":
            session = {"did": DID, "handle": "someone.test", "accessJwt": jwt(), "refreshJwt": jwt()}
            return session if vendor == "bluesky" else {**session, "didDoc": MOVED}
        case "bluesky", "/xrpc/app.bsky.actor.getProfile":
            return {"did": DID, "handle": "someone.test"}
        case "moving", "/xrpc/app.bsky.graph.getList":
            owner = {"uri": f"at://{DID}/app.bsky.graph.list/1", "cid": CID, "name": "people", "creator": SOMEONE}
            owner |= {"purpose": "app.bsky.graph.defs#curatelist", "indexedAt": DAY}
            return {"list": owner, "items": [{"uri": f"at://{DID}/app.bsky.graph.listitem/1", "subject": SOMEONE}]}
        case "bluesky" | "moving", "/xrpc/app.bsky.feed.getAuthorFeed":
            items, more = page(query.get("cursor", ""))
            rest = {"cursor": str(items[-1])} if more else {}
            return {"feed": [{"post": post(number)} for number in items], **rest}
        case "dlt" | "airbyte", "/orders":
            first = (int(query.get("page", "1")) - 1) * PER_PAGE
            items = range(first, min(first + PER_PAGE, ITEMS))
            return {"orders": [{"id": number, "name": f"item-{number}"} for number in items]}
    raise KeyError(f"{vendor} has no {path}")


def page(after: str) -> tuple[list[int], bool]:
    """The numbers that follow, and whether there are more."""
    first = int(after) + 1 if after else 0
    end = min(first + PER_PAGE, ITEMS)
    return list(range(first, end)), end < ITEMS


def post(number: int) -> dict:
    record = {"$type": "app.bsky.feed.post", "text": f"item-{number}", "createdAt": DAY}
    return {
        "uri": f"at://{DID}/app.bsky.feed.post/{number}",
        "cid": CID,
        "author": SOMEONE,
        "record": record,
        "indexedAt": DAY,
    }


def jwt() -> str:
    """A token that says when it ends, as the SDK wants to read; nobody signed it."""
    claims = {"sub": DID, "iat": int(time.time()), "exp": int(time.time()) + 3600, "scope": "com.atproto.access"}
    parts = [{"typ": "at+jwt", "alg": "none"}, claims, "unsigned"]
    return ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts)


def completion() -> Iterator[bytes]:
    """A streamed chat completion: one server-sent event per piece, and the end."""
    for text in STREAMED:
        choice = {"index": 0, "delta": {"role": "assistant", "content": text}, "finish_reason": None}
        chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
        yield f"data: {json.dumps(chunk)}\n\n".encode()
    yield b"data: [DONE]\n\n"
