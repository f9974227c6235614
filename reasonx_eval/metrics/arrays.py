"""What the public metrics take and give: numpy or torch, one image or a batch, any mask, values in float64."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from reasonx_eval.errors import SampleError

#: a float for one image; for leading axes a float64 array of their shape, in the input's library and on its device
Scores: TypeAlias = Any
Mask: TypeAlias = NDArray[np.bool_]


def each_image(
    measure: Callable[[NDArray[Any], NDArray[Any], Mask], Any],
    pred: Any,
    target: Any,
    mask: Any = None,
    *,
    axes: int,
    resizes: bool = False,
) -> Scores:
    """Apply a metric of one image to every image of a batch.

    Parameters
    ----------
    measure : from the prediction, the ground truth and the mask of one image to a float, or to floats by name
    pred, target : [..., H, W] if `axes` is 2, [..., H, W, C] if it is 3; numpy, torch (any device) or nested lists
    mask : [..., H, W] or, for all images, [H, W]; bool, or uint8 where 0 means no; all pixels count if it is None
    axes : of one image
    resizes : `measure` brings a prediction of another height and width to the ground truth's

    Returns
    -------
    float or dict of floats; float64 arrays [...] in their place where there are leading axes

    Raises
    ------
    SampleError
        Shapes that differ, a mask of another type, no image, or what `measure` raises, with the image's index.
    """
    p, g = to_numpy(pred), to_numpy(target)
    if g.ndim < axes:
        wanted = "[..., H, W]" if axes == 2 else "[..., H, W, C]"
        raise SampleError(f"ground truth has shape {g.shape}, expected {wanted}")
    lead = g.shape[: g.ndim - axes]
    if p.shape != g.shape and not (resizes and p.ndim == g.ndim and p.shape[: len(lead)] == lead):
        raise SampleError(f"prediction {p.shape} and ground truth {g.shape} differ in shape: resize first")
    valid = to_mask(mask, g.shape[: len(lead) + 2])
    if not lead:
        return measure(p, g, valid)
    found = []
    for at in np.ndindex(lead):
        try:
            found.append(measure(p[at], g[at], valid[at]))
        except SampleError as error:
            raise type(error)(error.what, where=f"image {list(at)} of {list(lead)}", fix=error.fix) from None
    if not found:
        raise SampleError(f"no image: the leading axes are {list(lead)}")
    if isinstance(found[0], dict):
        return {name: like(pred, target, [one[name] for one in found], lead) for name in found[0]}
    return like(pred, target, found, lead)


def to_numpy(value: Any) -> NDArray[Any]:
    """The values of an array or tensor; a type that numpy lacks (bfloat16) is widened to float32, which is exact."""
    torch = _torch()
    if torch is not None and isinstance(value, torch.Tensor):
        value = value.detach().cpu()
        return np.asarray((value.float() if value.dtype == torch.bfloat16 else value).numpy())
    return np.asarray(value)


def to_mask(mask: Any, shape: tuple[int, ...]) -> Mask:
    """A mask of bool or uint8 as bool of `shape`; all true for None.

    Raises
    ------
    SampleError
        Another type or shape.
    """
    if mask is None:
        return np.ones(shape, dtype=np.bool_)
    found = to_numpy(mask)
    if found.dtype not in (np.bool_, np.uint8):
        raise SampleError(f"mask has dtype {found.dtype}, expected bool or uint8", fix="mask > 0")
    if found.shape not in (shape, shape[-2:]):
        raise SampleError(f"mask {found.shape} and ground truth {shape} differ in shape")
    return np.broadcast_to(found if found.dtype == np.bool_ else found != 0, shape)


def _torch() -> Any:
    """The module torch if this process has imported it: without it nothing can be a tensor."""
    return sys.modules.get("torch")


def like(pred: Any, target: Any, values: Sequence[float], lead: tuple[int, ...]) -> Any:
    """Values as float64 of shape `lead`: a tensor on the device of the input that is one, else an array."""
    found = np.array(values, dtype=np.float64).reshape(lead)
    torch = _torch()
    tensor = next((v for v in (pred, target) if torch is not None and isinstance(v, torch.Tensor)), None)
    if tensor is None:
        return found
    # Apple's GPU has no float64
    dtype = torch.float32 if tensor.device.type == "mps" else torch.float64
    return torch.as_tensor(found, dtype=dtype, device=tensor.device)
