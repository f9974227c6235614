"""Relations between two points of a map, and how often two maps agree on them.

The same code scores benchmarks and rewards training: `related` takes numpy arrays and torch tensors. Codes are those
of `reasonx_eval.types`.

Ground truth uses a margin: pairs too close to call are LEFT_OUT and don't count. A prediction is asked
for direction only (margin 0). With a margin of its own, a map of low contrast or with one outlier (the
margin is a share of the range) would be marked wrong where its order is right; without one the agreement
in depth depends on nothing but the order of values. An exact tie has no direction: it is LEFT_OUT too,
and a LEFT_OUT of the prediction counts as wrong, so a flat map agrees with nothing.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from reasonx_eval.errors import SampleError, UndefinedScore, unknown
from reasonx_eval.io.color import LUMINANCE
from reasonx_eval.metrics.points import check_pairs, pixels
from reasonx_eval.types import DIFFERENT, FIRST, LEFT_OUT, SAME, SECOND

MODALITIES: Final = ("depth", "normals", "irradiance", "albedo")


def relation(
    *,
    value: NDArray[Any],
    points: NDArray[np.float64],
    pairs: NDArray[np.int64],
    modality: str,
    margin: float = 0.02,
    same_distance: float = 0.05,
    larger_is_closer: bool = False,
    valid: NDArray[np.bool_] | None = None,
) -> NDArray[np.int8]:
    """The relation of each pair of points, int8 [J].

    ===========  =========================================  ==============================================
    modality     FIRST if                                   LEFT_OUT if
    ===========  =========================================  ==============================================
    depth        point 1 is closer                          difference of the min-max normalised map < margin
    normals      point 1 faces the camera more              difference of facing < margin
    irradiance   point 1 receives more light                difference of luminance < margin
    albedo       never: SAME or DIFFERENT                   never
    ===========  =========================================  ==============================================

    Facing is -n_z of the unit vector (the camera looks along +z), in [-1, 1]. Albedo points are the SAME
    if the Euclidean distance of their RGB values, as given, is below `same_distance`. Exact ties are
    LEFT_OUT even at margin 0, and so is a pair with a normal of length 0.

    Parameters
    ----------
    value : [H, W] for depth, [H, W, 3] for the rest
    points : float64 [P, 2], (x, y) in [0, 1); the pixel is the truncated one
    pairs : int64 [J, 2], rows of `points`
    modality : depth, normals, irradiance or albedo
    margin : in the units of the table; 0.02 for ground truth, 0 for predictions
    same_distance : albedo threshold
    larger_is_closer : for depth given as disparity
    valid : bool [H, W], optional
        Where the map is measured: the min-max range is taken there, and a pair with a point elsewhere is
        LEFT_OUT. Without it every value counts.

    Raises
    ------
    SampleError
        A wrong shape, a point outside the image, or a value that isn't finite where it counts.

    Examples
    --------
    >>> points, pairs = np.array([[0.25, 0.5], [0.75, 0.5]]), np.array([[0, 1]])
    >>> int(relation(value=np.array([[1.0, 2.0]]), points=points, pairs=pairs, modality="depth")[0]) == FIRST
    True
    """
    if modality not in MODALITIES:
        raise unknown("modality", modality, MODALITIES)
    wanted = () if modality == "depth" else (3,)
    if value.ndim < 2 or value.shape[2:] != wanted:
        raise SampleError(f"a {modality} map has shape {value.shape}, expected {'[H, W, 3]' if wanted else '[H, W]'}")
    if valid is not None and valid.shape != value.shape[:2]:
        raise SampleError(f"mask {valid.shape} and map {value.shape} differ in shape")
    check_pairs(pairs=pairs, n_points=len(points))
    rows, cols = pixels(points=points, height=value.shape[0], width=value.shape[1])
    at = value[rows, cols].astype(np.float64)
    measured = np.ones(len(points), dtype=np.bool_) if valid is None else valid[rows, cols]
    used = np.zeros(len(points), dtype=np.bool_)
    used[pairs] = True
    finite = np.isfinite(at if at.ndim == 1 else at.sum(axis=1))
    bad = int(np.count_nonzero(used & measured & ~finite))
    if bad:
        raise SampleError(f"{modality} map is NaN or infinite at {bad} of {np.count_nonzero(used)} points")
    # points that aren't measured may hold anything; their pairs are dropped at the end
    at[~finite] = 0.0
    first, second = pairs[:, 0], pairs[:, 1]
    at = at.reshape(len(at), -1)
    extent = _range(value if valid is None else value[valid]) if modality == "depth" else 1.0
    found: NDArray[np.int64]
    found = related(at[first], at[second], modality, margin=margin, extent=extent, same_distance=same_distance,
                    larger_is_closer=larger_is_closer)  # fmt: skip
    found[~(measured[first] & measured[second])] = LEFT_OUT
    return found.astype(np.int8)


def related(
    first: Any, second: Any, modality: str, *, margin: float = 0.0, extent: float = 1.0, same_distance: float = 0.05,
    larger_is_closer: bool = False,
) -> Any:  # fmt: skip
    """The relation of pairs of values, integers [...]; see `relation`, which takes maps.

    Parameters
    ----------
    first, second : numpy arrays or torch tensors [..., C] of the values at both points; C is 1 for depth, 3 for the
        rest. NaN at one of them makes the pair LEFT_OUT
    extent : what differences of depth are divided by before they are held against `margin`
    """
    if modality == "albedo":
        distance = ((first - second) ** 2).sum(-1) ** 0.5
        return SAME * (distance < same_distance) + DIFFERENT * (distance >= same_distance) + LEFT_OUT * (
            distance != distance)  # fmt: skip
    with np.errstate(invalid="ignore"):  # infinity minus itself
        difference = compared(first, modality, larger_is_closer) - compared(second, modality, larger_is_closer)
    if modality == "depth" and extent > 0:
        difference = difference / extent
    up, down = (difference >= margin) & (difference > 0), (difference <= -margin) & (difference < 0)
    return FIRST * up + SECOND * down + LEFT_OUT * ~(up | down)


def compared(values: Any, modality: str, larger_is_closer: bool = False) -> Any:
    """What points are compared by, [...]: the larger is closer, faces more or has more light.

    Parameters
    ----------
    values : numpy array or torch tensor [..., C]; depth, unnormalised normals or irradiance. A normal of length 0 has
        NaN
    """
    if modality == "irradiance":
        weights = np.array(LUMINANCE) if isinstance(values, np.ndarray) else values.new_tensor(LUMINANCE)
        return values @ weights
    if modality == "normals":
        length = (values**2).sum(-1) ** 0.5
        with np.errstate(invalid="ignore", divide="ignore"):
            return -values[..., 2] / length * (length > 0)
    return values[..., 0] if larger_is_closer else -values[..., 0]


def agreement(pred: NDArray[np.int8], target: NDArray[np.int8]) -> float:
    """Share of the reference's pairs on which the prediction has the same relation, in [0, 1], higher is better.

    Parameters
    ----------
    pred, target : int8 [J], relations of the prediction and of the reference, from `relation`
        Pairs LEFT_OUT by the reference don't count; pairs LEFT_OUT by the prediction alone are wrong.

    Raises
    ------
    UndefinedScore
        The reference leaves out every pair.
    SampleError
        Different numbers of pairs.

    Examples
    --------
    >>> agreement(np.array([FIRST, FIRST, SECOND]), np.array([FIRST, SECOND, LEFT_OUT]))
    0.5
    """
    if pred.shape != target.shape:
        raise SampleError(f"{pred.size} predicted relations, {target.size} reference relations")
    counted = target != LEFT_OUT
    n = int(np.count_nonzero(counted))
    if n == 0:
        raise UndefinedScore("no pair that the reference decides")
    return int(np.count_nonzero(counted & (pred == target))) / n


def _range(values: NDArray[Any]) -> float:
    """Largest minus smallest value."""
    if values.size == 0:
        raise SampleError("no valid pixel in the map")
    extent = float(values.max()) - float(values.min())
    if not np.isfinite(extent):
        bad = int(np.count_nonzero(~np.isfinite(values)))
        raise SampleError(f"depth map is NaN or infinite at {bad} of {values.size} pixels: it has no range")
    return extent
