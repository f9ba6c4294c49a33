"""A small HTTPS API on a free loopback port, with a certificate authority of its own.

It does what the matrix asks of a real API: it answers in JSON and in pages, echoes, streams, compresses,
redirects, and refuses with 429 and `Retry-After`: the first request for some paths, all that do not fit
into a window (`/window/…`), and everything for some seconds after the first request (`/closed/<seconds>/…`).
"""

import gzip
import json
import math
import ssl
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, parse_qsl, urlsplit

import vendors

# The second piece of a stream is sent once the first was read, or after this time, and then it
# says so. No client needs a hundredth of it.
HEARD_TIMEOUT = 20
PAGES = 3
RETRY_AFTER = 1
# What `/window/…` admits, and in how many seconds.
WINDOW_LIMIT = 50
WINDOW = 2


def make_certificates(folder: Path) -> None:
    """Writes ca.pem, and server.pem with its key server.key, which that authority signed."""

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    openssl("req", "-x509", *curve, "-keyout", "ca.key", "-out", "ca.pem", "-days", "2",
            "-subj", "/CN=forbear test authority")
    openssl("req", *curve, "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=127.0.0.1")
    (folder / "server.ext").write_text("subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n")
    openssl("x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key",
            "-CAcreateserial", "-days", "2", "-extfile", "server.ext", "-out", "server.pem")


class Api:
    """The running API. Paths end with a name of the caller's choice, so that clients do not meet."""

    def __init__(self, certificates: Path) -> None:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(certificates / "server.pem", certificates / "server.key")
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.socket = tls.wrap_socket(self.server.socket, server_side=True)
        self.server.api = self
        self.url = f"https://127.0.0.1:{self.server.server_address[1]}"
        self._lock = threading.Lock()
        self._requests: dict[str, list[float]] = {}
        self._window = (0, 0)
        self._heard: dict[str, threading.Event] = {}
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def count(self, path: str) -> int:
        """Counts a request for the path; how many there were before."""
        with self._lock:
            times = self._requests.setdefault(path, [])
            times.append(time.time())
            return len(times) - 1

    def requests(self, path: str) -> int:
        """How often the path was asked for."""
        with self._lock:
            return len(self._requests.get(path, []))

    def times(self, path: str) -> list[float]:
        """When it was asked for, as Unix times."""
        with self._lock:
            return list(self._requests.get(path, []))

    def admitted(self) -> int:
        """How many more the present window would admit after this request; below 0 it is refused."""
        with self._lock:
            number, used = self._window
            now = int(time.time() / WINDOW)
            self._window = (now, used + 1 if now == number else 1)
            return WINDOW_LIMIT - self._window[1]

    def heard(self, path: str) -> threading.Event:
        """Set by a client that has read the first piece of this stream."""
        with self._lock:
            return self._heard.setdefault(path, threading.Event())

    def close(self) -> None:
        """Stops it."""
        self.server.shutdown()
        self.server.server_close()


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        target = urlsplit(self.path)
        first = self.server.api.count(target.path) == 0
        match target.path.split("/")[1]:
            case "limited" if first:
                self.answer(429, {"error": "too fast"}, {"Retry-After": str(RETRY_AFTER)})
            case "window":
                self.window()
            case "closed":
                left = self.server.api.times(target.path)[0] + int(target.path.split("/")[2]) - time.time()
                refused = {"Retry-After": str(math.ceil(left))}
                self.answer(*((429, {"error": "closed"}, refused) if left > 0 else (200, {"open": True})))
            case "pages":
                page = int(parse_qs(target.query).get("page", ["1"])[0])
                items = [page * 10, page * 10 + 1]
                self.answer(200, {"items": items, "next": page + 1 if page < PAGES else None})
            case "stream":
                self.stream(target.path, "text/plain", b"first\n", b"second\n")
            case "gzip":
                body = gzip.compress(json.dumps({"packed": "x" * 1000}).encode())
                self.send(200, body, {"Content-Encoding": "gzip"})
            case "redirect":
                # Relative to the path that the client sees, whatever stands before it.
                self.answer(302, {}, {"Location": "../get/redirected"})
            case "missing":
                self.answer(404, {"error": "no such thing"})
            case "vendors":
                self.vendor(b"", first)
            case _:
                self.answer(200, {"path": self.path, "host": self.headers["Host"]})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        first = self.server.api.count(urlsplit(self.path).path) == 0
        if first and self.path.startswith("/limited"):
            self.answer(429, {"error": "too fast"}, {"Retry-After": str(RETRY_AFTER)})
        elif self.path.startswith("/vendors/"):
            self.vendor(body, first)
        else:
            self.send(200, body, {})

    def window(self) -> None:
        left = self.server.api.admitted()
        until = (int(time.time() / WINDOW) + 1) * WINDOW - time.time()
        fields = {
            "X-RateLimit-Limit": str(WINDOW_LIMIT),
            "X-RateLimit-Remaining": str(max(0, left)),
            "X-RateLimit-Reset": str(math.ceil(until)),
        }
        if left < 0:
            self.server.api.count("refused by the window")
            self.answer(429, {"error": "too fast"}, {**fields, "Retry-After": str(math.ceil(until))})
        else:
            self.answer(200, {"path": self.path}, fields)

    def vendor(self, body: bytes, first: bool) -> None:
        """`/vendors/<name>/…`: see vendors.py."""
        target = urlsplit(self.path)
        name, _, path = target.path.removeprefix("/vendors/").partition("/")
        path = f"/{path}"
        if first and (refusal := vendors.refusal(name, path)):
            self.answer(429, refusal, {"Retry-After": str(RETRY_AFTER)})
        elif name == "openai":
            self.stream(target.path, "text/event-stream", *vendors.completion())
        else:
            form = body.decode() if "form" in self.headers.get("Content-Type", "") else ""
            self.answer(200, vendors.answer(name, path, dict(parse_qsl(target.query) + parse_qsl(form))))

    def answer(self, status: int, value: object, fields: dict[str, str] | None = None) -> None:
        self.send(status, json.dumps(value).encode(), fields or {})

    def send(self, status: int, body: bytes, fields: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **fields}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def stream(self, path: str, media_type: str, first: bytes, *rest: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", media_type)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.chunk(first)
        in_time = self.server.api.heard(path).wait(HEARD_TIMEOUT)
        for piece in rest if in_time else [b"held back\n"]:
            self.chunk(piece)
        self.chunk(b"")

    def chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def log_message(self, *_: object) -> None:
        """Says nothing: the matrix tells what matters."""
