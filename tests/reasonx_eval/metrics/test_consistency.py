"""Normals of depth maps on surfaces whose normals are known in closed form."""

from __future__ import annotations

import math

import numpy as np
import pytest

from reasonx_eval.errors import SampleError
from reasonx_eval.metrics.consistency import depth_normal_consistency, normals_from_depth

K = np.array([[210.0, 0, 79.3], [0, 190.0, 58.9], [0, 0, 1]])
SHAPE = (120, 160)


def _rays():
    u, v = np.meshgrid(np.arange(SHAPE[1]), np.arange(SHAPE[0]))
    return np.stack([(u - K[0, 2]) / K[0, 0], (v - K[1, 2]) / K[1, 1], np.ones(SHAPE)], axis=-1)


def _plane(normal, distance):
    """Depth of the plane n . X = -distance, for a normal towards the camera."""
    normal = np.asarray(normal, dtype=np.float64) / np.linalg.norm(normal)
    return -distance / (_rays() @ normal), normal


def _sphere(centre=(0.1, -0.05, 4.0), radius=1.5):
    """Depth, normals and mask of the visible half of a sphere."""
    rays, c = _rays(), np.asarray(centre)
    a, b = (rays**2).sum(-1), rays @ c
    root = b**2 - a * (c @ c - radius**2)
    hit = root > 0
    depth = np.where(hit, (b - np.sqrt(np.maximum(root, 0))) / a, np.inf)
    normal = np.zeros((*SHAPE, 3))
    normal[hit] = (depth[hit][:, None] * rays[hit] - c) / radius
    return depth, normal, hit


@pytest.mark.parametrize("normal", [(0, 0, -1), (0.3, 0, -1), (-0.2, -0.6, -0.9), (0, -1, -0.2)])
def test_planes_are_exact(normal):
    depth, expected = _plane(normal, 2.0)
    mask = (depth > 0) & (depth < 50)
    found, good = normals_from_depth(depth=depth, mask=mask, intrinsics=K)
    assert good.sum() > 1000
    np.testing.assert_allclose(found[good], np.broadcast_to(expected, found[good].shape), atol=1e-9)
    assert not found[~good].any()


def test_sphere_is_right_to_second_order_and_faces_the_camera():
    depth, expected, hit = _sphere()
    found, good = normals_from_depth(depth=depth, mask=hit, intrinsics=K)
    facing = good & ((expected * _rays()).sum(-1) / np.linalg.norm(_rays(), axis=-1) < -0.4)
    cosine = (found * expected).sum(-1)[facing]
    assert facing.sum() > 2000
    assert np.degrees(np.arccos(np.clip(cosine, -1, 1))).max() < 0.2
    assert ((found * _rays()).sum(-1)[good] < 0).all()


def test_valid_needs_the_four_neighbours():
    mask = np.ones(SHAPE, bool)
    mask[50, 60] = False
    depth = np.full(SHAPE, 3.0)
    depth[20, 30], depth[90, 100], depth[10, 140] = np.nan, 0.0, np.inf
    _, good = normals_from_depth(depth=depth, mask=mask, intrinsics=K)
    expected = np.zeros(SHAPE, bool)
    expected[1:-1, 1:-1] = True
    for row, col in ((50, 60), (20, 30), (90, 100), (10, 140)):
        for r, c in ((0, 0), (0, 1), (1, 0), (0, -1), (-1, 0)):
            expected[row + r, col + c] = False
    np.testing.assert_array_equal(good, expected)


def test_scale_of_depth_does_not_matter_and_blocks_leave_no_seams():
    depth, _, hit = _sphere()
    rows = 400  # more rows than one block of 600 columns holds
    tall = np.tile(depth, (4, 4))[:rows, :600]
    mask = np.tile(hit, (4, 4))[:rows, :600]
    found, good = normals_from_depth(depth=tall, mask=mask, intrinsics=K)
    scaled, _ = normals_from_depth(depth=tall * 8, mask=mask, intrinsics=K)
    np.testing.assert_allclose(scaled, found, atol=1e-12)
    for row in range(1, rows - 3, 37):
        shifted = K.copy()
        shifted[1, 2] -= row - 1
        three = slice(row - 1, row + 2)
        part, fine = normals_from_depth(depth=tall[three], mask=mask[three], intrinsics=shifted)
        np.testing.assert_array_equal(fine[1], good[row])
        np.testing.assert_allclose(part[1], found[row], atol=1e-9)


def test_consistent_pair_is_perfect_and_a_turned_one_is_off_by_its_angle():
    depth, normal = _plane((0.3, -0.4, -1), 2.0)
    mask = (depth > 0) & (depth < 50)
    same = np.broadcast_to(normal, (*SHAPE, 3))
    score = {"depth": depth.astype(np.float32), "mask": mask, "intrinsics": K}
    found = depth_normal_consistency(normal=same, **score | {"depth": depth})
    assert found["consistency_deg"] < 1e-5
    assert found["consistency_rmse"] < 1e-6
    side = np.cross(normal, (0, 1, 0)) / np.linalg.norm(np.cross(normal, (0, 1, 0)))
    angle = math.radians(10)
    turned = 5 * (math.cos(angle) * same + math.sin(angle) * side)
    found = depth_normal_consistency(normal=turned, **score | {"depth": depth})
    assert found["consistency_deg"] == pytest.approx(10, rel=1e-6)
    unit = turned / 5
    assert found["consistency_rmse"] == pytest.approx(np.sqrt(np.mean((unit - same) ** 2)), rel=1e-6)
    opposite = depth_normal_consistency(normal=-same, **score | {"depth": depth})
    assert opposite["consistency_rmse"] == pytest.approx(2 / math.sqrt(3))


def test_bad_input():
    depth, mask, normal = np.full(SHAPE, 2.0), np.ones(SHAPE, bool), np.ones((*SHAPE, 3))
    score = {"depth": depth, "normal": normal, "mask": mask, "intrinsics": K}
    with pytest.raises(SampleError, match="no pixel with four"):
        depth_normal_consistency(**score | {"mask": ~mask})
    for size in ((2, 160), (120, 2)):
        small = {k: score[k][: size[0], : size[1]] for k in ("depth", "normal", "mask")}
        with pytest.raises(SampleError, match="no pixel with four"):
            depth_normal_consistency(intrinsics=K, **small)
    with pytest.raises(SampleError, match="differ in size"):
        depth_normal_consistency(**score | {"normal": normal[1:]})
    with pytest.raises(SampleError, match="NaN or infinite"):
        depth_normal_consistency(**score | {"normal": normal * np.nan})
    with pytest.raises(SampleError, match="differ in shape"):
        depth_normal_consistency(**score | {"mask": mask[1:]})
    for wrong in (np.eye(4), np.zeros((3, 3)), K * np.nan):
        with pytest.raises(SampleError, match="intrinsics"):
            normals_from_depth(depth=depth, mask=mask, intrinsics=wrong)
