"""One deadline for the whole reply of a server, whatever it does instead of answering."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

from reasonx_ft.judges import server_client


def drips(first: bytes, again: bytes, pause: float = 0.02) -> Callable[[socket.socket], None]:
    """A server that says `first`, then `again` for ever."""

    def talk(client: socket.socket) -> None:
        client.recv(1 << 20)
        client.sendall(first)
        while True:
            client.sendall(again)
            time.sleep(pause)

    return talk


@contextmanager
def raw_server(talk: Callable[[socket.socket], None]) -> Iterator[str]:
    """The address of a server that does with each connection what `talk` does."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def accept() -> None:
            with suppress(OSError):
                while True:
                    client, _ = listening.accept()
                    threading.Thread(target=one, args=(client,), daemon=True).start()

        def one(client: socket.socket) -> None:
            with client, suppress(OSError):
                talk(client)

        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


_OK = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize("talk", [
    drips(b"", b"HTTP/1.1 100 Continue\r\n\r\n", 0.0),
    drips(b"", b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n"),
    drips(_OK, b"X"),
    drips(_OK + b"X-Long: ", b"a"),
    drips(_OK, b"X-More: a\r\n"),
    drips(_OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n", b"X-Trailer: a\r\n"),
    drips(_OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
    drips(_OK + b"Content-Length: 100000\r\n\r\n", b" "),
    drips(_OK + b"\r\n", b" "),
    drips(b"", b""),
], ids=["continue", "hints", "header", "value", "headers", "trailers", "chunks", "body", "endless", "silent"])
def test_one_deadline_for_the_whole_reply(talk: Callable[[socket.socket], None]) -> None:
    async def ask(url: str) -> Any:
        async with server_client.Client(server_client.parse_address(url), 0.5, 0) as client:
            return await client.post("/chat/completions", {})

    # a header that grows beyond all bounds may be refused before the time is over
    why = r"no whole reply within 0\.5 s|connection was dropped"
    with raw_server(talk) as url, pytest.raises(server_client.Failed, match=why):
        asyncio.run(asyncio.wait_for(ask(url), 30))
