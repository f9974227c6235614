"""A network in an .onnx file, run as its card says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reasonx_eval.errors import DataError, SampleError, UsageError, unknown
from reasonx_eval.io.color import srgb8_table
from reasonx_eval.io.digests import sha256_file, sha256_lines
from reasonx_eval.models.adapters.onnx_card import InputSpec, OnnxCard, OutputSpec, Port, SideSpec, read_card, spatial
from reasonx_eval.models.adapters.onnx_files import external_files
from reasonx_eval.models.base import Model, ModelInfo, check_kind
from reasonx_eval.types import NORMAL_FRAMES, TASK_OF_KIND, Kind, Prediction, Sample

_DTYPES: Mapping[str, type[np.generic]] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(uint8)": np.uint8,
}
_DEVICES: Mapping[str, tuple[str, ...]] = {
    "auto": ("CPUExecutionProvider",),
    "cpu": ("CPUExecutionProvider",),
    "cuda": ("CUDAExecutionProvider", "CPUExecutionProvider"),
}


class OnnxModel(Model):
    """An ONNX network with a card (see `onnx_card.OnnxCard`); predictions have the network's own resolution.

    Photos go through one at a time, so no number depends on the other photos of a batch; a network whose batch size is
    fixed above one gets the same photo that many times.

    Parameters
    ----------
    path : FILE.onnx
    card : default: FILE.json beside it
    device : auto and cpu (the same), or cuda
    providers : onnxruntime's execution providers by name, instead of `device`
    threads : threads inside one prediction; 1 gives the same digits on machines with other core counts

    Raises
    ------
    UsageError
        No such file, no card (prints an example), or a card that contradicts the network.
    DataError
        A file that is not a network, or is damaged.
    """

    thread_safe = True

    def __init__(
        self,
        path: Path | str,
        *,
        card: Path | str | None = None,
        device: str = "auto",
        providers: tuple[str, ...] | None = None,
        threads: int = 1,
    ) -> None:
        self.path = Path(path)
        if threads < 1:
            raise UsageError(f"threads is {threads}; needs 1 or more", where=str(self.path))
        self._providers = _providers(device, providers, str(self.path))
        self._threads = threads
        inputs, outputs = self._ports()
        if len(inputs) != 1:
            raise UsageError(f"the network has {len(inputs)} inputs ({'; '.join(map(str, inputs))}); only networks "
                             "that take one photo and nothing else are supported", where=str(self.path))  # fmt: skip
        card_path = Path(card) if card is not None else self.path.with_suffix(".json")
        self.card: OnnxCard = read_card(card_path, self.path, inputs, outputs)
        self._input = inputs[0]
        if self.card.input.name not in (None, self._input.name):
            raise unknown("input", str(self.card.input.name), [self._input.name], where=str(self.path))
        self._output = _chosen_output(self.card.output, outputs, str(self.path))
        self._check()

    @property
    def info(self) -> ModelInfo:
        card = self.card
        options = {
            "input": card.input.model_dump(mode="json"),
            "output": card.output.model_dump(mode="json"),
            "providers": list(self._providers),
            "threads": self._threads,
        }
        return ModelInfo(
            name=card.name,
            source=str(self.path),
            weights_sha256=self._weights_sha256,
            licence=card.licence,
            parameters=card.parameters,
            base=card.base,
            trained_on=card.trained_on,
            reward=card.reward,
            options=options,
            notes=(card.notes,) if card.notes else (),
        )

    @property
    def kinds(self) -> Mapping[str, tuple[Kind, ...]]:
        kind = self.card.output.kind
        return {TASK_OF_KIND[kind]: (kind,)}

    def predict(self, samples: Sequence[Sample], kind: Kind, seed: int) -> list[Prediction]:
        check_kind(kind, (self.card.output.kind,), where=self.card.name)
        return [Prediction(kind, self._map(s.image, s.id)) for s in samples]

    def close(self) -> None:
        self.__dict__.pop("_session", None)

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k != "_session"}

    @cached_property
    def _session(self) -> Any:
        return open_session(self.path, self._providers, self._threads)

    @cached_property
    def _weights_sha256(self) -> str:
        """sha256 of the file; with weights in other files, of all digests. A file with the usual name counts too."""
        usual = (self.path.with_name(self.path.name + suffix) for suffix in (".data", "_data"))
        others = {*external_files(self.path), *(path for path in usual if path.is_file())}
        digests = [sha256_file(path) for path in (self.path, *sorted(others))]
        return digests[0] if len(digests) == 1 else sha256_lines(digests)

    def _ports(self) -> tuple[list[Port], list[Port]]:
        session = self._session
        return (
            [Port(p.name, tuple(p.shape), p.type) for p in session.get_inputs()],
            [Port(p.name, tuple(p.shape), p.type) for p in session.get_outputs()],
        )

    def _check(self) -> None:
        """The card against the network's own shapes and types."""
        spec, port, where = self.card.input, self._input, str(self.path)
        size = spatial(port.shape, spec.layout)
        if size is None:
            raise UsageError(f"input {port} has {len(port.shape)} axes; a photo needs 4 ({spec.layout})", where=where)
        if port.type not in _DTYPES:
            raise UsageError(f"input {port}: supported types are {', '.join(_DTYPES)}", where=where)
        channels = port.shape[spec.layout.index("C")]
        elsewhere = 3 in (port.shape[1], port.shape[3])
        if channels != 3 and (isinstance(channels, int) or elsewhere):
            raise UsageError(f"input {port} has {channels} channels in layout {spec.layout}; a photo has 3",
                             where=where, fix="correct input.layout in the card")  # fmt: skip
        for axis, (fixed, side) in enumerate(zip(size, _fixed_size(spec), strict=True)):
            if isinstance(fixed, int) and fixed != side:
                said = list(spec.size) if isinstance(spec.size, tuple) else spec.size
                raise UsageError(f"input {port} has a fixed {('height', 'width')[axis]} of {fixed}, but the card says "
                                 f"size {said}", where=where, fix=f'"size": {list(size)} in the card')  # fmt: skip
        if port.type == "tensor(uint8)" and (spec.range != "0-255" or any(spec.mean) or set(spec.std) != {1.0}):
            raise UsageError(f"input {port} takes 8-bit values: range 0-255, no mean, no std", where=where)

    def _map(self, image: NDArray[np.uint8], sample_id: str) -> NDArray[np.float32]:
        where = f"{self.card.name}: sample {sample_id}"
        seen = resized(image, self.card.input)
        try:
            (raw,) = self._session.run([self._output.name], {self._input.name: self._feed(seen)})
        except Exception as error:
            raise SampleError(f"the network failed on {seen.shape[1]} x {seen.shape[0]} pixels: "
                              f"{' '.join(str(error).split())[:300]}", where=where,
                              fix="input.size or input.multiple_of in the card") from None  # fmt: skip
        value = finished(_channels_last(np.asarray(raw), self.card, where), seen, self.card.output)
        if not np.isfinite(value).all():
            bad = int(np.count_nonzero(~np.isfinite(value)))
            raise SampleError(f"the network gives {bad} of {value.size} values that are NaN or infinite", where=where,
                              fix="check range, mean, std and transform in the card")  # fmt: skip
        return value

    def _feed(self, seen: NDArray[np.uint8]) -> NDArray[np.generic]:
        spec, dtype = self.card.input, _DTYPES[self._input.type]
        x = normalised(seen, spec).astype(dtype)
        x = x.transpose(2, 0, 1) if spec.layout == "NCHW" else x
        batch = self._input.shape[0]
        return np.ascontiguousarray(np.broadcast_to(x, (batch if isinstance(batch, int) else 1, *x.shape)))


def open_session(path: Path, providers: Sequence[str], threads: int) -> Any:
    """An onnxruntime session.

    Raises
    ------
    UsageError
        No such file, or an operator that this onnxruntime lacks.  DataError : not a network, or damaged.
    """
    where = str(path)
    if not path.is_file():
        raise UsageError("no such file", where=where)
    with path.open("rb") as handle:
        head = handle.read(64)
    if not head:
        raise DataError("file is empty (0 bytes): an interrupted download?", where=where)
    if head.startswith(b"version https://git-lfs"):
        raise DataError("a Git LFS pointer, not the network itself", where=where, fix="git lfs pull")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(str(path), sess_options=options, providers=list(providers))
    except Exception as error:
        detail = " ".join(str(error).split())[:300]
        if type(error).__name__ == "NotImplemented":
            raise UsageError(f"onnxruntime {onnxruntime.__version__} can't run it: {detail}", where=where) from None
        raise DataError(f"can't be opened as an ONNX network ({detail}): damaged, or another format?",
                        where=where) from None  # fmt: skip


def resized(image: NDArray[np.uint8], spec: InputSpec) -> NDArray[np.uint8]:
    """The photo in the network's input size, uint8 [h, w, 3]."""
    from PIL import Image

    height, width = target_size(image.shape[0], image.shape[1], spec)
    if (height, width) == image.shape[:2]:
        return image
    method = {
        "bilinear": Image.Resampling.BILINEAR,
        "bicubic": Image.Resampling.BICUBIC,
        "area": Image.Resampling.BOX,
        "nearest": Image.Resampling.NEAREST,
    }[spec.resize]
    return np.asarray(Image.fromarray(image).resize((width, height), method))


def target_size(height: int, width: int, spec: InputSpec) -> tuple[int, int]:
    """Height and width that a photo of this size is resized to."""
    if isinstance(spec.size, tuple):
        return spec.size
    factor = 1.0
    if isinstance(spec.size, SideSpec):
        short = spec.size.short_side
        factor = short / min(height, width) if short else (spec.size.long_side or 1) / max(height, width)
    m = spec.multiple_of
    return max(1, round(height * factor / m)) * m, max(1, round(width * factor / m)) * m


def normalised(seen: NDArray[np.uint8], spec: InputSpec) -> NDArray[np.float32]:
    """The network's input values, float32 [h, w, 3] in the card's channel order."""
    if spec.colour == "linear":
        x = srgb8_table().astype(np.float32)[seen]
    else:
        x = seen.astype(np.float32)
        if spec.range == "0-1":
            x /= np.float32(255)
    x = x[..., ::-1] if spec.channels == "BGR" else x
    mean, std = (np.array(v, dtype=np.float32) for v in (spec.mean, spec.std))
    return np.asarray((x - mean) / std, dtype=np.float32)


def finished(raw: NDArray[np.float32], seen: NDArray[np.uint8], spec: OutputSpec) -> NDArray[np.float32]:
    """The map from the raw output: floor, transform, scale, offset, frame of normals."""
    value = raw.astype(np.float64)
    if spec.floor is not None:
        value = np.maximum(value, spec.floor)
    with np.errstate(all="ignore"):  # the caller refuses infinite values
        if spec.transform == "exp":
            value = np.exp(value)
        elif spec.transform == "reciprocal":
            value = 1.0 / value
        elif spec.transform == "intensity_to_albedo":
            value = colour_albedo(value, seen)
        value = value * spec.scale + spec.offset
        if spec.kind == "normal":
            value = value * np.array(NORMAL_FRAMES[spec.normals_frame], dtype=np.float64)
        return value.astype(np.float32)


def colour_albedo(intensity: NDArray[np.float64], seen: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Colour albedo with the photo's chromaticity and the given mean; black pixels, which have none, become grey.

    Parameters
    ----------
    intensity : float64 [h, w], grey reflectance; resized (bilinear) to the photo as the network saw it
    seen : uint8 [H, W, 3]

    Returns
    -------
    float64 [H, W, 3], linear: ``rgb_linear * intensity / mean(rgb_linear)``
    """
    from PIL import Image

    height, width = seen.shape[:2]
    if intensity.shape != (height, width):
        small = Image.fromarray(intensity.astype(np.float32))
        intensity = np.asarray(small.resize((width, height), Image.Resampling.BILINEAR), dtype=np.float64)
    rgb = srgb8_table()[seen]
    mean = rgb.mean(axis=-1, keepdims=True)
    return np.asarray(np.divide(rgb, mean, out=np.ones_like(rgb), where=mean > 0) * intensity[..., None])


def _channels_last(raw: NDArray[Any], card: OnnxCard, where: str) -> NDArray[np.float32]:
    """The first element of the raw output as [h, w] or [h, w, 3], by the layout that the card states."""
    spec = card.output
    layout = spec.layout or (card.input.layout if raw.ndim == 4 else "NHW" if spec.channels == 1 else "CHW")
    expected = "one channel" if spec.channels == 1 else "three channels"
    if raw.ndim == len(layout):
        value, axes = (raw[0], layout[1:]) if layout[0] == "N" else (raw, layout)
        if "C" in axes:
            value = np.moveaxis(value, axes.index("C"), -1)
            if value.shape[-1] == spec.channels and value.size:
                return np.asarray(value[..., 0] if spec.channels == 1 else value, dtype=np.float32)
        elif value.size:
            return np.asarray(value, dtype=np.float32)
    raise SampleError(f"the network's output has shape {list(raw.shape)}; {spec.kind} in layout {layout} needs "
                      f"{expected}", where=where,
                      fix="output.layout, output.name or output.kind in the card")  # fmt: skip


def _fixed_size(spec: InputSpec) -> tuple[int | None, int | None]:
    return spec.size if isinstance(spec.size, tuple) else (None, None)


def _chosen_output(spec: OutputSpec, ports: Sequence[Port], where: str) -> Port:
    if spec.name is not None:
        by_name = {p.name: p for p in ports}
        if spec.name not in by_name:
            raise unknown("output", spec.name, by_name, where=where)
        return by_name[spec.name]
    if spec.index >= len(ports):
        raise UsageError(f"output.index is {spec.index}, but the network has {len(ports)} outputs", where=where)
    return ports[spec.index]


def _providers(device: str, providers: tuple[str, ...] | None, where: str) -> tuple[str, ...]:
    import onnxruntime

    chosen = tuple(providers) if providers is not None else _DEVICES.get(device)
    if chosen is None:
        raise unknown("device", device, _DEVICES, where=where)
    available = onnxruntime.get_available_providers()
    for name in chosen:
        if name not in available:
            raise UsageError(f"onnxruntime here has no {name}; it has {', '.join(available)}", where=where,
                             fix="pip install onnxruntime-gpu" if "CUDA" in name else None)  # fmt: skip
    return chosen
