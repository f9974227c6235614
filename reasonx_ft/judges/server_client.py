"""JSON over HTTP to a server that may be slow, busy, broken or hostile; the key to it is never shown.

Retried with exponential back-off and jitter: 429 (waiting at least as long as Retry-After says), 500 to 504, dropped
connections, time-outs, and replies that are cut off, too long or no JSON. Not retried: everything the user must mend.
"""

from __future__ import annotations

import http.client
import json
import math
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any, Final
from urllib.parse import urlsplit

from reasonx_eval.errors import UsageError
from reasonx_eval.io.seeding import rng

#: no answer to a question about two points is longer; what is longer is not read on
MOST_BYTES: Final = 2 << 20
_BUSY: Final = frozenset({429, 500, 501, 502, 503, 504})
#: seconds: the first wait, the longest of our own, the longest that a server may ask for
_FIRST_WAIT: Final = 0.5
_LONGEST_WAIT: Final = 30.0
_LONGEST_ASKED: Final = 300.0
_SHOWN: Final = 200


class Failed(Exception):
    """One request got no usable reply, after all retries."""


class Refused(Exception):
    """The server understood a request and declined it (400, 413, 422): its status and what it says."""

    def __init__(self, status: int, says: str) -> None:
        super().__init__(f"{status}: {says}")
        self.status = status
        self.says = says


class _Retry(Exception):
    """Worth another try, not before `wait` seconds; `down`: nobody listens at all."""

    def __init__(self, why: str, wait: float = 0.0, *, down: bool = False) -> None:
        super().__init__(why)
        self.wait = wait
        self.down = down


@dataclass(frozen=True)
class Address:
    """Where a server is.

    shown : without query, for messages, names and keys of answers
    """

    https: bool
    host: str
    port: int
    base: str
    query: str = field(repr=False, default="")

    @property
    def shown(self) -> str:
        usual = 443 if self.https else 80
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http{'s' * self.https}://{host}{'' if self.port == usual else f':{self.port}'}{self.base}"


def parse_address(url: str) -> Address:
    """The address of an OpenAI-compatible server: with or without ``/v1`` and ``/chat/completions``.

    Raises
    ------
    UsageError
        Not http or https, no host, or a user name or password in it.
    """
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        port = parts.port
    except ValueError:
        raise UsageError("not an address; expected http://HOST:PORT/v1", where="server") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError("not an address of http or https", where="server", fix="--judge server:http://HOST:8000/v1")
    if parts.username is not None or parts.password is not None:
        raise UsageError("the address has a user name or password in it, which would be shown", where="server",
                         fix="put the key into an environment variable")  # fmt: skip
    base = parts.path.rstrip("/").removesuffix("/chat/completions").rstrip("/") or "/v1"
    https = parts.scheme == "https"
    return Address(https, parts.hostname, port or (443 if https else 80), base, parts.query)


@dataclass
class Client:
    """Requests to one server, from any number of threads.

    Parameters
    ----------
    timeout : seconds that one try may take, from connecting to the last byte
    retries : further tries after the first
    key : sent as a bearer token; shown nowhere
    seed : of the jitter
    """

    address: Address
    timeout: float
    retries: int
    key: str | None = field(default=None, repr=False)
    seed: int = 0

    def __post_init__(self) -> None:
        self._own = threading.local()
        self._reached = False
        self._stop = threading.Event()
        self._open: set[http.client.HTTPConnection] = set()
        self._lock = threading.Lock()

    def get(self, path: str, *, stream: str = "") -> Any:
        """The JSON value at a path below the base; see `post`."""
        return self._tries("GET", path, None, stream, retries=0)

    def post(self, path: str, body: Mapping[str, Any], *, stream: str) -> Any:
        """The JSON value that the server replies with.

        Parameters
        ----------
        stream : names the random stream of the jitter

        Raises
        ------
        UsageError
            The server can't be reached, wants another key, or has no such path or model.
        Refused
            It declines this request.
        Failed
            No usable reply after all retries.
        """
        data = json.dumps(body, ensure_ascii=True, allow_nan=False).encode()
        return self._tries("POST", path, data, stream, retries=self.retries)

    def stop(self) -> None:
        """End all requests that are under way or wait for another try; they fail."""
        self._stop.set()
        with self._lock:
            for connection in self._open:
                if connection.sock is not None:
                    with suppress(OSError):
                        connection.sock.shutdown(socket.SHUT_RDWR)  # wakes the thread that reads it; closing does not

    def resume(self) -> None:
        """Take requests again after `stop`."""
        self._stop.clear()

    def close(self) -> None:
        """Close all connections; no request may be under way."""
        with self._lock:
            for connection in self._open:
                connection.close()
            self._open.clear()
        self._own = threading.local()

    def _tries(self, method: str, path: str, data: bytes | None, stream: str, *, retries: int) -> Any:
        jitter = rng(self.seed, "server", stream)
        for attempt in range(retries + 1):
            if self._stop.is_set():
                break
            try:
                return self._once(method, path, data)
            except _Retry as problem:
                # a server that never answered is not coming back; one that did may be starting again
                if attempt == retries or (problem.down and not self._reached):
                    if problem.down:
                        raise UsageError(f"no server there: {problem}", where=self.address.shown,
                                         fix="start it, or correct the address") from None  # fmt: skip
                    raise Failed(str(problem)) from None
                backed = min(_FIRST_WAIT * 2**attempt, _LONGEST_WAIT) * float(jitter.uniform(0.5, 1.0))
                self._stop.wait(max(backed, problem.wait))
        raise Failed("stopped")

    def _once(self, method: str, path: str, data: bytes | None) -> Any:
        until = time.monotonic() + self.timeout
        for again in (True, False):
            connection, kept = self._connection()
            try:
                return self._judge(*_exchange(connection, method, self._target(path), data, self._headers(), until))
            except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError) as error:
                connection.close()
                if not (kept and again):  # a kept connection may have been closed since
                    raise _Retry(f"the connection was dropped ({type(error).__name__})") from None
            except ssl.SSLCertVerificationError as error:
                connection.close()
                raise UsageError(f"its certificate is not trusted: {error.verify_message}",
                                 where=self.address.shown) from None  # fmt: skip
            except (ConnectionRefusedError, socket.gaierror) as error:
                connection.close()
                raise _Retry(error.strerror or type(error).__name__, down=True) from None
            except TimeoutError:
                connection.close()
                raise _Retry(f"no reply within {self.timeout:g} s") from None
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                raise _Retry(self._clean(f"{type(error).__name__}: {error}")) from None
        raise AssertionError("unreachable")

    def _judge(self, status: int, headers: Mapping[str, str], body: bytes, whole: bool) -> Any:
        self._reached = True
        if status in (401, 403):
            given = "the key is not accepted" if self.key else "it wants a key"
            raise UsageError(f"{given} (HTTP {status})", where=self.address.shown,
                             fix="export the key, and name its variable: -O key_env=NAME")  # fmt: skip
        if status == 404:
            raise UsageError(f"no such path or model (HTTP 404): {self._clean(_text(body))}", where=self.address.shown,
                             fix="the address of an OpenAI-compatible server ends in /v1; "
                                 "-O model=NAME is one that it serves")  # fmt: skip
        if 300 <= status < 400:
            raise UsageError(f"it redirects (HTTP {status}); keys are not sent elsewhere", where=self.address.shown,
                             fix="name the address that it redirects to")  # fmt: skip
        if status in _BUSY or not whole:
            cut = "the reply is cut off or too long"
            why = f"HTTP {status}: {self._clean(_text(body))}" if status in _BUSY else cut
            raise _Retry(why, _retry_after(headers))
        if status >= 400:
            raise Refused(status, self._clean(_text(body)))
        try:
            return json.loads(body)
        except (ValueError, RecursionError):
            raise _Retry("the reply is no JSON") from None

    def _connection(self) -> tuple[http.client.HTTPConnection, bool]:
        """This thread's connection, and whether it is open from an earlier request."""
        found: http.client.HTTPConnection | None = getattr(self._own, "connection", None)
        if found is not None:
            return found, found.sock is not None
        kind = http.client.HTTPSConnection if self.address.https else http.client.HTTPConnection
        made = kind(self.address.host, self.address.port, timeout=self.timeout)
        self._own.connection = made
        with self._lock:
            self._open.add(made)
        return made, False

    def _target(self, path: str) -> str:
        return self.address.base + path + (f"?{self.address.query}" if self.address.query else "")

    def _headers(self) -> dict[str, str]:
        found = {"Content-Type": "application/json", "Accept": "application/json"}
        return found | ({"Authorization": f"Bearer {self.key}"} if self.key else {})

    def _clean(self, text: str) -> str:
        """One line without the key, which a server may repeat."""
        line = " ".join(text.split())
        return (line.replace(self.key, "***") if self.key else line)[:_SHOWN]


def _exchange(
    connection: http.client.HTTPConnection, method: str, target: str, data: bytes | None,
    headers: Mapping[str, str], until: float,
) -> tuple[int, Mapping[str, str], bytes, bool]:  # fmt: skip
    """Status, headers, body, and whether all of the body came."""
    if connection.sock is not None:
        connection.sock.settimeout(_left(until))
    connection.request(method, target, body=data, headers=dict(headers))
    reply = connection.getresponse()
    parts, size = [], 0
    promised, cut = reply.length, False
    while size <= MOST_BYTES:
        if connection.sock is not None:
            connection.sock.settimeout(_left(until))
        try:
            part = reply.read1(1 << 16)
        except http.client.IncompleteRead:
            cut = True
            break
        if not part:
            break
        parts.append(part)
        size += len(part)
        _left(until)  # a server that sends a byte a second must not hold a try for ever
    whole = size == promised if promised is not None else not cut and size <= MOST_BYTES
    reply.close()
    if not whole or reply.will_close:
        connection.close()
    return reply.status, {k.lower(): v for k, v in reply.getheaders()}, b"".join(parts), whole


def _left(until: float) -> float:
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _retry_after(headers: Mapping[str, str]) -> float:
    """Seconds that the server asks to wait, at most five minutes."""
    said = headers.get("retry-after", "")
    try:
        seconds = float(said)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(said).timestamp() - time.time()
        except (ValueError, TypeError, OverflowError):
            return 0.0
    return min(max(seconds, 0.0), _LONGEST_ASKED) if math.isfinite(seconds) else 0.0


def _text(body: bytes) -> str:
    """What an error reply says: its message if it is OpenAI's form, else its text."""
    try:
        value = json.loads(body)
        inner = value.get("error", value)
        return str(inner.get("message", inner) if isinstance(inner, dict) else inner)
    except (ValueError, RecursionError, AttributeError):
        return body[: 4 * _SHOWN].decode("utf-8", "replace")
