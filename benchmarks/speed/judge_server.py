"""An OpenAI-compatible endpoint as a process: answers after a fixed time, and some requests with trouble first.

Run as ``python -m benchmarks.speed.judge_server LATENCY_S TROUBLE``; prints its port.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import re
import sys
from collections import Counter

_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
#: request -> how often it came
SEEN: Counter[bytes] = Counter()
#: request -> how often it was answered
ANSWERED: Counter[bytes] = Counter()


async def serve(latency: float, trouble: float) -> None:
    """Answer until the process is ended.

    Parameters
    ----------
    latency : seconds until a reply
    trouble : share of replies that are 429, 500 or a dropped connection, keyed by the request and by how often it came
    """

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = _LENGTH.search(head)
                body = await reader.readexactly(int(length[1])) if length else b""
                if not await _reply(head, body, writer, latency, trouble):
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0, limit=1 << 21, backlog=256)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


async def _reply(head: bytes, body: bytes, writer: asyncio.StreamWriter, latency: float, trouble: float) -> bool:
    """Answer one request; False ends the connection."""
    if head.startswith(b"GET"):
        _send(writer, 200, {"asked": sum(SEEN.values()), "answered": sum(ANSWERED.values()),
                            "different": len(ANSWERED)})  # fmt: skip
        return True
    key = hashlib.blake2b(body, digest_size=16).digest()
    SEEN[key] += 1
    draw = hashlib.blake2b(key + bytes([SEEN[key]]), digest_size=8).digest()
    await asyncio.sleep(latency)
    if int.from_bytes(draw[:4], "big") < trouble * 2**32:
        kind = draw[4] % 3
        if kind == 2:
            return False
        _send(writer, (429, 500)[kind], {"error": {"message": "busy"}})
        return True
    ANSWERED[key] += 1
    share = 0.05 + 0.9 * key[0] / 255
    first, second = ("yes", "no") if b"yes or no" in body else ("red", "green")
    listed = [{"token": t, "logprob": math.log(p)} for t, p in ((first, share), (second, 1 - share))]
    _send(writer, 200, {"choices": [{"message": {"role": "assistant", "content": first}, "finish_reason": "length",
                                     "logprobs": {"content": [{**listed[0], "top_logprobs": listed}]}}]})  # fmt: skip
    await writer.drain()
    return True


def _send(writer: asyncio.StreamWriter, status: int, value: object) -> None:
    data = json.dumps(value).encode()
    writer.write(b"HTTP/1.1 %d x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % (status, len(data)))
    writer.write(data)


if __name__ == "__main__":
    asyncio.run(serve(float(sys.argv[1]), float(sys.argv[2])))
