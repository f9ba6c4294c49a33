"""The clients, each as its users write it: no adapter, no retry, no setting but the base URL.

All of them have the same four functions: `get` (redirects followed), `post`, `stream`, which calls
`heard` as soon as it has a first piece, and `via`, which gets an http:// URL through a proxy.
"""

import asyncio
import json
import subprocess
from collections.abc import Callable
from dataclasses import dataclass

import aiohttp
import httpx
import requests
import urllib3

# Longer than anything here takes; a client that hangs is a failure and not a hung test.
TIMEOUT = 40


@dataclass
class Answer:
    """What came back: status, fields by lower-case name, and the body, decoded."""

    status: int
    fields: dict[str, str]
    body: bytes

    def json(self) -> dict:
        return json.loads(self.body)


def lower(fields) -> dict[str, str]:
    return {name.lower(): value for name, value in fields.items()}


class Requests:
    """requests, as most scripts use it."""

    name = "requests"

    def get(self, url: str) -> Answer:
        answer = requests.get(url, timeout=TIMEOUT)
        return Answer(answer.status_code, lower(answer.headers), answer.content)

    def post(self, url: str, body: bytes) -> Answer:
        answer = requests.post(url, data=body, timeout=TIMEOUT)
        return Answer(answer.status_code, lower(answer.headers), answer.content)

    def stream(self, url: str, heard: Callable[[], None]) -> bytes:
        with requests.get(url, stream=True, timeout=TIMEOUT) as answer:
            return read(answer.iter_content(None), heard)

    def via(self, proxy: str, url: str) -> Answer:
        answer = requests.get(url, proxies={"http": proxy}, timeout=TIMEOUT)
        return Answer(answer.status_code, lower(answer.headers), answer.content)


class Urllib3:
    """urllib3 alone, which requests and many SDKs stand on."""

    name = "urllib3"

    def get(self, url: str) -> Answer:
        answer = urllib3.request("GET", url, timeout=TIMEOUT)
        return Answer(answer.status, lower(answer.headers), answer.data)

    def post(self, url: str, body: bytes) -> Answer:
        answer = urllib3.request("POST", url, body=body, timeout=TIMEOUT)
        return Answer(answer.status, lower(answer.headers), answer.data)

    def stream(self, url: str, heard: Callable[[], None]) -> bytes:
        answer = urllib3.request("GET", url, preload_content=False, timeout=TIMEOUT)
        return read(answer.stream(), heard)

    def via(self, proxy: str, url: str) -> Answer:
        answer = urllib3.ProxyManager(proxy).request("GET", url, timeout=TIMEOUT)
        return Answer(answer.status, lower(answer.headers), answer.data)


class Httpx:
    """httpx, which the SDKs of language models are built on."""

    name = "httpx"

    def get(self, url: str) -> Answer:
        answer = httpx.get(url, follow_redirects=True, timeout=TIMEOUT)
        return Answer(answer.status_code, lower(answer.headers), answer.content)

    def post(self, url: str, body: bytes) -> Answer:
        answer = httpx.post(url, content=body, timeout=TIMEOUT)
        return Answer(answer.status_code, lower(answer.headers), answer.content)

    def stream(self, url: str, heard: Callable[[], None]) -> bytes:
        with httpx.stream("GET", url, timeout=TIMEOUT) as answer:
            return read(answer.iter_bytes(), heard)

    def via(self, proxy: str, url: str) -> Answer:
        answer = httpx.get(url, proxy=proxy, timeout=TIMEOUT)
        return Answer(answer.status_code, lower(answer.headers), answer.content)


class Aiohttp:
    """aiohttp, with a session for each call, so that none helps another."""

    name = "aiohttp"

    def get(self, url: str) -> Answer:
        return asyncio.run(self._whole("GET", url))

    def post(self, url: str, body: bytes) -> Answer:
        return asyncio.run(self._whole("POST", url, data=body))

    def via(self, proxy: str, url: str) -> Answer:
        return asyncio.run(self._whole("GET", url, proxy=proxy))

    async def _whole(self, method: str, url: str, **more: object) -> Answer:
        limit = aiohttp.ClientTimeout(TIMEOUT)
        async with aiohttp.ClientSession(timeout=limit) as session:
            async with session.request(method, url, **more) as answer:
                return Answer(answer.status, lower(answer.headers), await answer.read())

    def stream(self, url: str, heard: Callable[[], None]) -> bytes:
        async def pieces() -> bytes:
            limit = aiohttp.ClientTimeout(TIMEOUT)
            async with aiohttp.ClientSession(timeout=limit) as session:
                async with session.get(url) as answer:
                    whole = b""
                    async for piece in answer.content.iter_any():
                        whole += piece
                        heard()
                    return whole

        return asyncio.run(pieces())


class Curl:
    """The curl command."""

    name = "curl"
    command = ("curl", "-sS", "--max-time", str(TIMEOUT))

    def get(self, url: str) -> Answer:
        return self._whole("--location", "--compressed", url)

    def post(self, url: str, body: bytes) -> Answer:
        return self._whole("--data-binary", "@-", url, body=body)

    def via(self, proxy: str, url: str) -> Answer:
        return self._whole("--proxy", proxy, url)

    def _whole(self, *arguments: str, body: bytes = b"") -> Answer:
        told = ["--dump-header", "/dev/stderr"]
        run = [*self.command, *told, *arguments]
        out = subprocess.run(run, input=body, capture_output=True, timeout=TIMEOUT + 5, check=True)
        # One head for each redirect; the last one counts.
        head = out.stderr.decode().strip().split("\r\n\r\n")[-1].split("\r\n")
        fields = dict(line.split(": ", 1) for line in head[1:])
        return Answer(int(head[0].split()[1]), lower(fields), out.stdout)

    def stream(self, url: str, heard: Callable[[], None]) -> bytes:
        return from_process([*self.command, "--no-buffer", url], heard)


class Node:
    """fetch, as Node brings it."""

    name = "node fetch"
    whole = """
        const [method, url, body] = JSON.parse(process.argv[1]);
        const answer = await fetch(url, { method, body: body ?? undefined });
        const text = await answer.text();
        console.log(JSON.stringify(
            { status: answer.status, fields: Object.fromEntries(answer.headers), text }));
    """
    pieces = """
        const answer = await fetch(process.argv[1]);
        for await (const piece of answer.body) process.stdout.write(piece);
    """

    def get(self, url: str) -> Answer:
        return self._whole("GET", url, None)

    def post(self, url: str, body: bytes) -> Answer:
        return self._whole("POST", url, body.decode())

    def _whole(self, *what: str | None) -> Answer:
        run = [*self._command(self.whole), json.dumps(what)]
        out = subprocess.run(run, capture_output=True, timeout=TIMEOUT, check=True)
        said = json.loads(out.stdout)
        return Answer(said["status"], said["fields"], said["text"].encode())

    def stream(self, url: str, heard: Callable[[], None]) -> bytes:
        return from_process([*self._command(self.pieces), url], heard)

    def _command(self, script: str) -> list[str]:
        return ["node", "--input-type=module", "-e", script]


def read(pieces, heard: Callable[[], None]) -> bytes:
    """Puts pieces together, and tells that there was one."""
    whole = b""
    for piece in pieces:
        whole += piece
        heard()
    return whole


def from_process(command: list[str], heard: Callable[[], None]) -> bytes:
    """What a command writes, piece by piece as it comes."""
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        whole = read(iter(lambda: process.stdout.read1(65536), b""), heard)
        if process.wait(TIMEOUT) != 0:
            raise RuntimeError(f"{command[0]} ended with {process.returncode}")
    return whole


ALL = [Curl(), Requests(), Urllib3(), Httpx(), Aiohttp(), Node()]
