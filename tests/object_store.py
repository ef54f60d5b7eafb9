"""A real S3 protocol server on this machine, and in front of it a proxy that counts, delays and breaks requests.

`python object_store.py PORT_OF_PROXY PORT_OF_SERVER` is the proxy as a process of its own, that can be killed.
"""

from __future__ import annotations

import contextlib
import http.client
import http.server
import random
import re
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

LOOPBACK = "127.0.0.1"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
_SLOW_DOWN = (
    b'<?xml version="1.0" encoding="UTF-8"?><Error><Code>SlowDown</Code><Message>Please reduce your request rate.'
    b"</Message></Error>"
)
_PASSED_ON = ("connection", "keep-alive", "transfer-encoding", "content-length", "date", "server")


@dataclass
class Faults:
    """What the proxy does to requests; each fault with a probability, drawn by the seed."""

    seed: int = 0
    seconds: float = 0.0
    """How long every answer takes longer."""
    odds: Mapping[str, float] = field(default_factory=dict)
    """How likely is: 500, 503 (SlowDown), reset (before the server hears of it), lost (the server's answer to it),
    half (of an answer's bytes), hang (no answer for `hang_seconds`)."""
    only: str = ""
    """A pattern of `METHOD path` that a request must match to be broken."""
    most: int = 1 << 30
    """How many requests are broken at most."""
    hang_seconds: float = 8.0

    def __post_init__(self) -> None:
        self._random, self._lock, self.done = random.Random(self.seed), threading.Lock(), []

    def draw(self, request: str) -> str | None:
        """Return what happens to a request, if anything does."""
        with self._lock:
            if len(self.done) >= self.most or not re.search(self.only, request):
                return None
            at = self._random.random()
            for fault, odds in self.odds.items():
                if at < odds:
                    self.done.append((fault, request))
                    return fault
                at -= odds
            return None


class Proxy(http.server.ThreadingHTTPServer):
    """Hands requests to a server on this machine; `requests` has those it took, `faults` says what goes wrong."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, behind: int, port: int = 0) -> None:
        super().__init__((LOOPBACK, port), _Handler)
        self.behind, self.faults, self.requests = behind, Faults(), []

    @property
    def port(self) -> int:
        return self.server_address[1]

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of connections that break: that is what this is for."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Proxy

    def _any(self) -> None:
        body = self._body()
        said = f"{self.command} {self.path}"
        self.server.requests.append(said)
        faults = self.server.faults
        time.sleep(faults.seconds)
        fault = faults.draw(said)
        if fault == "hang":
            time.sleep(faults.hang_seconds)
        if fault in ("reset", "hang"):
            return self._reset()
        if fault in ("500", "503"):
            return self._send(int(fault), [], _SLOW_DOWN if fault == "503" else b"", None)
        try:
            behind = http.client.HTTPConnection(LOOPBACK, self.server.behind, timeout=60)
            behind.request(self.command, self.path, body, dict(self.headers))
            answer = behind.getresponse()
            content = answer.read()
            behind.close()
        except (OSError, http.client.HTTPException):
            return self._reset()
        if fault == "lost":
            return self._reset()
        headers = [(name, value) for name, value in answer.getheaders() if name.lower() not in _PASSED_ON]
        length = answer.getheader("content-length") if self.command == "HEAD" else None
        self._send(answer.status, headers, content, length, half=fault == "half")

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _any

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        del self.headers["Transfer-Encoding"]
        return b"".join(parts)

    def _send(
        self, status: int, headers: list[tuple[str, str]], content: bytes, length: str | None, half: bool = False
    ) -> None:
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", length or str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[: len(content) // 2] if half else content)
        if half:
            self._reset()

    def _reset(self) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.wfile.flush()
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()

    def log_message(self, format: str, *words: object) -> None:
        """Say nothing."""


@dataclass(frozen=True)
class ObjectStore:
    """A server, the proxy in front of it, and where its bucket is."""

    proxy: Proxy
    behind: int

    def uri(self, path: str, port: int | None = None) -> str:
        """Return the address of a folder in the bucket, as the proxy answers it, or what listens on another port."""
        return f"s3://bucket/{path}?endpoint_override={LOOPBACK}:{port or self.proxy.port}&scheme=http"

    @contextlib.contextmanager
    def faults(self, **given: object) -> Iterator[Faults]:
        """Break requests inside the block."""
        self.proxy.faults = Faults(**given)
        try:
            yield self.proxy.faults
        finally:
            self.proxy.faults = Faults()

    @contextlib.contextmanager
    def counted(self) -> Iterator[list[str]]:
        """Give the requests made inside the block, once it ends."""
        before, found = len(self.proxy.requests), []
        yield found
        found += self.proxy.requests[before:]


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.create_server((LOOPBACK, 0)) as found:
        return found.getsockname()[1]


@contextlib.contextmanager
def listening(words: list[str], port: int) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server of this Python's inside the block, from when it listens on."""
    process = subprocess.Popen([sys.executable, *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while True:
            with contextlib.suppress(OSError):
                socket.create_connection((LOOPBACK, port), timeout=1).close()
                break
            assert process.poll() is None and time.monotonic() < deadline, f"{words} does not listen"
            time.sleep(0.02)
        yield process
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def running() -> Iterator[ObjectStore]:
    """Run the S3 server and the proxy inside the block, with an empty bucket."""
    behind = free_port()
    with listening(["-m", "moto.server", "-H", LOOPBACK, "-p", str(behind)], behind), Proxy(behind) as proxy:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        create = urllib.request.Request(f"http://{LOOPBACK}:{behind}/bucket", method="PUT")
        urllib.request.urlopen(create).close()
        yield ObjectStore(proxy, behind)
        proxy.shutdown()


if __name__ == "__main__":
    Proxy(int(sys.argv[2]), int(sys.argv[1])).serve_forever()
