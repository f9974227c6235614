"""An OpenAI-compatible endpoint in a thread, which answers, delays, fails and lies as told."""

from __future__ import annotations

import base64
import io
import json
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

from reasonx_ft.types import ORDERS, Answer, Photo, Question, photo_digest


@dataclass
class Reply:
    """What a request gets.

    body : JSON value, or bytes as they are
    cut : how many bytes of the body are kept back although they were promised
    drop : close the connection without a word
    drip : seconds between two bytes
    """

    body: Any = None
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0.0
    cut: int = 0
    drop: bool = False
    drip: float = 0.0


@dataclass
class Seen:
    """What a server was asked: bodies in order of arrival, how many at a time, and with which headers."""

    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


def completion(
    text: Any, tokens: list[tuple[str, dict[str, float]]] | None = None, *, finish: Any = "stop", **message: Any
) -> Any:
    """A chat completion; `tokens` are said tokens with the probabilities of their alternatives."""
    choice: dict[str, Any] = {"index": 0, "message": {"role": "assistant", "content": text, **message},
                              "finish_reason": finish}  # fmt: skip
    if tokens is not None:
        choice["logprobs"] = {"content": [
            {"token": said, "logprob": math.log(among[said]),
             "top_logprobs": [{"token": t, "logprob": math.log(p)} for t, p in among.items()]}
            for said, among in tokens
        ]}  # fmt: skip
    return {"id": "x", "object": "chat.completion", "choices": [choice]}


def picture_of(body: Mapping[str, Any]) -> np.ndarray[Any, Any]:
    """The picture of a request, uint8 [H, W, 3]."""
    from PIL import Image

    url = body["messages"][0]["content"][0]["image_url"]["url"]
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))))


def modality_of(body: Mapping[str, Any]) -> str:
    """Which of the package's questions a request asks."""
    text = body["messages"][0]["content"][1]["text"]
    words = {"nearer": "depth", "turned": "normals", "light fall": "irradiance", "base colour": "albedo"}
    return next(m for w, m in words.items() if w in text)


@contextmanager
def serving(
    answer: Callable[[dict[str, Any], int], Reply], *, models: Any = ("judge-7b",), port: int = 0
) -> Iterator[tuple[str, Seen]]:
    """Address and log of a server; `answer` gets a request's body and its number."""
    seen = Seen()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *arguments: Any) -> None:
            pass

        def do_GET(self) -> None:
            with seen.lock:
                seen.paths.append(self.path)
            listed = models if isinstance(models, Reply) else Reply({"data": [{"id": m} for m in models]})
            self.send(listed)

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with seen.lock:
                number = len(seen.bodies)
                seen.bodies.append(body)
                seen.headers.append(dict(self.headers))
                seen.paths.append(self.path)
                seen.at_once += 1
                seen.most_at_once = max(seen.most_at_once, seen.at_once)
            try:
                reply = answer(body, number)
                time.sleep(reply.delay)
            finally:
                with seen.lock:
                    seen.at_once -= 1
            self.send(reply)

        def send(self, reply: Reply) -> None:
            if reply.drop:
                self.close_connection = True
                return
            data = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
            try:
                self.send_response(reply.status)
                for name, value in {"Content-Type": "application/json", "Content-Length": str(len(data)),
                                    **reply.headers}.items():  # fmt: skip
                    self.send_header(name, value)
                self.end_headers()
                if reply.drip:
                    for i in range(len(data)):
                        self.wfile.write(data[i : i + 1])
                        self.wfile.flush()
                        time.sleep(reply.drip)
                else:
                    self.wfile.write(data[: len(data) - reply.cut])
            except OSError:
                self.close_connection = True  # the caller has gone
            if reply.cut:
                self.close_connection = True

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

        def handle_error(self, *arguments: Any) -> None:
            pass  # the caller has gone

    server = Quiet(("127.0.0.1", port), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", seen
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


MODALITIES = ("depth", "normals", "irradiance", "albedo")


def photo(seed: int = 0) -> Photo:
    image = np.random.default_rng(seed).integers(0, 255, (60, 80, 3), dtype=np.uint8)
    return Photo(f"photo{seed}", image, photo_digest(image))


PHOTO = photo()


def questions(pairs: int = 2) -> list[Question]:
    return [Question(PHOTO, (40 + 20 * k, 50), (200, 300), m, o)
            for k in range(pairs) for o in ORDERS for m in MODALITIES]  # fmt: skip


def red(p: float) -> dict[str, float]:
    """The first token's probabilities where red, or yes, has p of what both candidates have."""
    return {" red": 0.5 * p, " green": 0.5 * (1 - p), " yes": 0.4 * p, " no": 0.4 * (1 - p), " The": 0.05}


def says_red(body: dict[str, Any], number: int) -> Reply:
    return Reply(completion(" red", [(" red", red(0.8))]))


def chance(picture: np.ndarray[Any, Any], modality: str) -> float:
    """A probability that is another one for every picture and modality."""
    total = int(picture.astype(np.int64).sum()) * 7 + MODALITIES.index(modality) * 13
    return 0.05 + 0.9 * (total % 101) / 101


def values(answers: Sequence[Answer]) -> list[float]:
    return [a.probability for a in answers]


def first_point(question: Question, p: float) -> float:
    """What a red (or yes) of probability p says about the first point (or sameness)."""
    return p if question.modality == "albedo" or question.order == "red-first" else 1 - p
