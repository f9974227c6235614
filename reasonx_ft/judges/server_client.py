"""JSON over HTTP to a server that may be slow, busy, broken or hostile; the key to it is never shown.

Retried with exponential back-off and jitter: 429 (after at least as long as Retry-After says), 500 to 504, dropped
connections, time-outs, and replies that are cut off, too long or no JSON. Not retried: everything the user must mend.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import math
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any, Final, Self
from urllib.parse import parse_qsl, quote, urlsplit

import aiohttp
import msgspec
from yarl import URL

from reasonx_eval.errors import UsageError
from reasonx_eval.report.tables import printable

#: no answer to a question about two points is longer; what is longer is not read on
MOST_BYTES: Final = 2 << 20
_BUSY: Final = frozenset({429, 500, 501, 502, 503, 504})
#: seconds: the longest first wait before another try, the longest of all, the longest that a server may ask for
FIRST_WAIT = 0.25
_LONGEST_WAIT: Final = 30.0
_LONGEST_ASKED: Final = 300.0
_SHOWN: Final = 200
#: a shorter value in an address is a version number, not a secret
_SECRET_LENGTH: Final = 8


class Failed(Exception):
    """One request got no usable reply, after all retries."""


class Refused(Exception):
    """The server understood a request and declined it (400, 413, 422): its status and its reason."""

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

    shown: str
    query: str = field(repr=False, default="")

    def url(self, path: str) -> URL:
        return URL(f"{self.shown}{path}{'?' if self.query else ''}{self.query}", encoded=True)


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
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    usual = port is None or port == (443 if parts.scheme == "https" else 80)
    return Address(f"{parts.scheme}://{host}{'' if usual else f':{port}'}{base}", parts.query)


class Client:
    """Requests to one server, for use as ``async with client``.

    Parameters
    ----------
    timeout : seconds that one try may take, from connecting to the last byte of the reply
    retries : further tries after the first
    concurrency : requests under way at a time, at most; one that waits for another try is not under way
    key : sent as a bearer token; shown nowhere
    """

    def __init__(self, address: Address, timeout: float, retries: int, *, concurrency: int = 1,
                 key: str | None = None) -> None:  # fmt: skip
        self.address, self._timeout, self._retries = address, timeout, retries
        self._concurrency, self._key = concurrency, key
        self._secrets = _forms(key, address.query)
        self._reached = False
        self._fatal: UsageError | None = None

    async def __aenter__(self) -> Self:
        self._slots, self._fatal = asyncio.Semaphore(self._concurrency), None
        headers = {"Accept": "application/json"} | ({"Authorization": f"Bearer {self._key}"} if self._key else {})
        self._session = aiohttp.ClientSession(
            headers=headers, connector=aiohttp.TCPConnector(limit=0), cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None),  # see _once
        )  # fmt: skip
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._session.close()

    async def get(self, path: str) -> Any:
        """The JSON value at a path below the base, asked for once; raises what `post` raises."""
        return await self._tries("GET", path, None, tries=1)

    async def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """The JSON value that the server replies with.

        Raises
        ------
        UsageError
            The server can't be reached, wants another key, or has no such path or model.
        Refused
            It declines this request.
        Failed
            No usable reply after all retries.
        """
        return await self._tries("POST", path, msgspec.json.encode(body), tries=self._retries + 1)

    def clean(self, text: str) -> str:
        """A server's text for people: one printable line of at most 200 characters without the key."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        line = printable(" ".join(text.split()))
        for secret in self._secrets:  # a secret that was cut in pieces by white space
            line = line.replace(secret, "***")
        return line[:_SHOWN]

    async def _tries(self, method: str, path: str, data: bytes | None, *, tries: int) -> Any:
        for attempt in range(tries):
            try:
                return await self._once(method, path, data)
            except _Retry as problem:
                # a server that never answered is not coming back; one that did may be starting again
                if attempt + 1 < tries and (self._reached or not problem.down):
                    await asyncio.sleep(max(_backoff(attempt), problem.wait))
                elif problem.down:
                    raise UsageError(f"no server there: {problem}", where=self.address.shown,
                                     fix="start it, or correct the address") from None  # fmt: skip
                else:
                    raise Failed(str(problem)) from None
        raise AssertionError("at least one try")

    async def _once(self, method: str, path: str, data: bytes | None) -> Any:
        # above one MiB the library warns of plain bytes
        body = io.BytesIO(data) if data is not None and len(data) > 1 << 20 else data
        try:
            # one deadline for everything: connecting, headers, "100 Continue", body, trailers
            async with self._slots, asyncio.timeout(self._timeout):
                if self._fatal is not None:
                    raise self._fatal  # of another request: this one would fail alike
                async with self._session.request(method, self.address.url(path), data=body, allow_redirects=False,
                                                 headers={"Content-Type": "application/json"}) as reply:  # fmt: skip
                    return self._value(reply.status, reply.headers, await _read(reply))
        except UsageError as error:
            self._fatal = error
            raise
        except TimeoutError:
            raise _Retry(f"no whole reply within {self._timeout:g} s") from None
        except aiohttp.ClientConnectorCertificateError as error:
            raise UsageError(f"its certificate is not trusted: {self.clean(str(error.certificate_error))}",
                             where=self.address.shown) from None  # fmt: skip
        except aiohttp.ClientConnectorError as error:
            raise _Retry(error.strerror or type(error.os_error).__name__, down=True) from None
        except aiohttp.ClientPayloadError:
            raise _Retry("the reply is cut off") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise _Retry(self.clean(f"the connection was dropped ({type(error).__name__}: {error})")) from None

    def _value(self, status: int, headers: Mapping[str, str], body: bytes | None) -> Any:
        self._reached = True
        says = self.clean(_text(body or b"")) if status >= 300 else ""
        if status in (401, 403):
            given = "the key is not accepted" if self._key else "it wants a key"
            raise UsageError(f"{given} (HTTP {status})", where=self.address.shown,
                             fix="export the key, and name its variable: -O key_env=NAME")  # fmt: skip
        if status == 404:
            raise UsageError(f"no such path or model (HTTP 404): {says}", where=self.address.shown,
                             fix="the address of an OpenAI-compatible server ends in /v1; "
                                 "-O model=NAME is one that it serves")  # fmt: skip
        if 300 <= status < 400:
            raise UsageError(f"it redirects (HTTP {status}); keys are not sent elsewhere", where=self.address.shown,
                             fix="name the address that it redirects to")  # fmt: skip
        if status in _BUSY:
            raise _Retry(f"HTTP {status}: {says}", _retry_after(headers))
        if body is None:
            raise _Retry(f"the reply is longer than {MOST_BYTES >> 20} MiB")
        if status >= 400:
            raise Refused(status, says)
        try:
            return json.loads(body)
        except (ValueError, RecursionError):
            raise _Retry("the reply is no JSON") from None


async def _read(reply: aiohttp.ClientResponse) -> bytes | None:
    """The body to its end; None where it is too long."""
    parts, size = [], 0
    async for part in reply.content.iter_any():
        parts.append(part)
        size += len(part)
        if size > MOST_BYTES:
            reply.close()
            return None
    return b"".join(parts)


def _backoff(attempt: int) -> float:
    """Seconds before another try, at random up to a bound that doubles: what failed together doesn't come together."""
    return random.uniform(0, min(FIRST_WAIT * 2**attempt, _LONGEST_WAIT))


def _retry_after(headers: Mapping[str, str]) -> float:
    """Seconds that the server asks to wait, at most five minutes."""
    said = headers.get("Retry-After", "")
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


def _forms(key: str | None, query: str) -> list[str]:
    """Everything that must not be shown: the key, values in the address, and both as they are coded in replies."""
    secrets = [key] if key else []
    secrets += [value for _, value in parse_qsl(query) if len(value) >= _SECRET_LENGTH]
    coded = [f for s in secrets for f in (s, quote(s, safe=""), base64.b64encode(s.encode()).decode().rstrip("="))]
    return sorted(set(coded), key=len, reverse=True)
