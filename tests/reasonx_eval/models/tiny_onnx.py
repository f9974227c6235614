"""Networks of a few nodes as bytes: the part of ONNX's protobuf format that the tests need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

Shape = Sequence[int | str]
FLOAT, UINT8, INT64, FLOAT16, DOUBLE = 1, 2, 7, 10, 11


def _varint(value: int) -> bytes:
    out = bytearray()
    value &= (1 << 64) - 1
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def _number(tag: int, value: int) -> bytes:
    return _varint(tag << 3) + _varint(value)


def _bytes(tag: int, value: bytes | str) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return _varint(tag << 3 | 2) + _varint(len(data)) + data


def _value_info(name: str, shape: Shape, dtype: int) -> bytes:
    dims = b"".join(_bytes(1, _number(1, d) if isinstance(d, int) else _bytes(2, d)) for d in shape)
    return _bytes(1, name) + _bytes(2, _bytes(1, _number(1, dtype) + _bytes(2, dims)))


@dataclass(frozen=True)
class Node:
    op: str
    inputs: Sequence[str]
    outputs: Sequence[str]
    ints: dict[str, Sequence[int] | int] = field(default_factory=dict)

    def encode(self) -> bytes:
        out = b"".join(_bytes(1, i) for i in self.inputs) + b"".join(_bytes(2, o) for o in self.outputs)
        out += _bytes(4, self.op)
        for name, value in self.ints.items():
            if isinstance(value, int):
                out += _bytes(5, _bytes(1, name) + _number(3, value) + _number(20, 2))
            else:
                out += _bytes(5, _bytes(1, name) + b"".join(_number(8, v) for v in value) + _number(20, 7))
        return out


def network(
    nodes: Sequence[Node],
    inputs: Sequence[tuple[str, Shape]],
    outputs: Sequence[tuple[str, Shape]],
    constants: dict[str, np.ndarray] | None = None,
    dtype: int = FLOAT,
    places: dict[str, str] | None = None,
) -> bytes:
    """A ModelProto, opset 17. Constants are float32 or int64; those in `places` lie in the file that it names."""
    graph = b"".join(_bytes(1, n.encode()) for n in nodes) + _bytes(2, "graph")
    for name, array in (constants or {}).items():
        tensor = b"".join(_number(1, d) for d in array.shape)
        tensor += _number(2, INT64 if array.dtype == np.int64 else FLOAT) + _bytes(8, name)
        if name in (places or {}):
            tensor += _bytes(13, _bytes(1, "location") + _bytes(2, (places or {})[name])) + _number(14, 1)
        else:
            tensor += _bytes(9, array.tobytes())
        graph += _bytes(5, tensor)
    graph += b"".join(_bytes(11, _value_info(n, s, dtype)) for n, s in inputs)
    graph += b"".join(_bytes(12, _value_info(n, s, dtype)) for n, s in outputs)
    return _number(1, 8) + _bytes(7, graph) + _bytes(8, _number(2, 17))


def identity(shape: Shape = (1, 3, "h", "w"), dtype: int = FLOAT) -> bytes:
    """The network's input as its output."""
    return network([Node("Identity", ["x"], ["y"])], [("x", shape)], [("y", shape)], dtype=dtype)


def channel_sum(weights: Sequence[float], shape: Shape = (1, 3, "h", "w")) -> bytes:
    """A weighted sum of the three channels, as a 1x1 convolution."""
    kernel = np.array(weights, dtype=np.float32).reshape(1, 3, 1, 1)
    return network([Node("Conv", ["x", "k"], ["y"])], [("x", shape)], [("y", (shape[0], 1, shape[2], shape[3]))],
                   {"k": kernel})  # fmt: skip


def pooled(factor: int) -> bytes:
    """The mean of the channels, averaged over blocks: an output smaller than the input."""
    kernel = np.full((1, 3, 1, 1), 1 / 3, dtype=np.float32)
    nodes = [
        Node("Conv", ["x", "k"], ["m"]),
        Node("AveragePool", ["m"], ["y"], {"kernel_shape": (factor, factor), "strides": (factor, factor)}),
    ]
    return network(nodes, [("x", (1, 3, "h", "w"))], [("y", (1, 1, "h2", "w2"))], {"k": kernel})
