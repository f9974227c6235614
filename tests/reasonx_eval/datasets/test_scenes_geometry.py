"""Geometry and light of hand-made scenes against closed forms and plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest

from reasonx_eval.datasets.scenes.camera import Camera, Response
from reasonx_eval.datasets.scenes.exact import IDENTITY, Matrix, Triple, rotation
from reasonx_eval.datasets.scenes.geometry import Box, Room, Solid, Sphere
from reasonx_eval.datasets.scenes.layout import World
from reasonx_eval.datasets.scenes.light import Ambient, Lighting, PointLight, SunLight, Window
from reasonx_eval.datasets.scenes.render import Scene, render_world
from reasonx_eval.datasets.scenes.textures import Texture

GREY = Texture("plain", ((0.5, 0.5, 0.5),) * 3)
RED = Texture("plain", ((0.8, 0.2, 0.1),) * 3)
DARK = Lighting(Ambient((0.0, 0.0, 0.0)))
# odd, so that one ray runs along the optical axis
SIZE = (45, 61)


def scene(*solids: Solid, lighting: Lighting = DARK, turn: Matrix = IDENTITY, floor: float = 1.5) -> Scene:
    """A camera with 90 degrees of view in a room 6 m wide, whose far wall is 5 m ahead."""
    room = Room((-3.0, -1.5, -1.0), (3.0, floor, 5.0), (GREY,) * 6)
    return render_world(World(room, solids, lighting, Camera(turn, 90.0, 1.0, Response()), {}), SIZE)


def rays(s: Scene) -> np.ndarray:
    """Camera-frame ray of each pixel from the intrinsics, [H, W, 3], z = 1."""
    rows, columns = np.indices(s.size)
    inverse = np.linalg.inv(s.intrinsics)
    return np.stack([columns, rows, np.ones_like(rows)], axis=-1) @ inverse.T


def test_empty_room_by_hand() -> None:
    s = scene()
    assert s.depth[22, 30] == 5.0
    assert s.normal[22, 30].tolist() == [0.0, 0.0, -1.0]
    # the lowest middle pixel looks at the floor, 1.5 m below the camera
    down = rays(s)[44, 30, 1]
    assert s.depth[44, 30] == pytest.approx(1.5 / down)
    assert s.normal[44, 30].tolist() == [0.0, -1.0, 0.0]
    # 45 degrees to the right the side wall at x = 3 is met at z = 3 / tan
    right = rays(s)[22, 60, 0]
    assert s.depth[22, 60] == pytest.approx(3.0 / right)
    assert s.normal[22, 60].tolist() == [-1.0, 0.0, 0.0]
    assert s.normal[0, 30].tolist() == [0.0, 1.0, 0.0]


def test_sphere_against_the_closed_form() -> None:
    centre, radius = np.array([0.4, -0.2, 2.5]), 0.7
    s = scene(Sphere((0.4, -0.2, 2.5), radius, RED))
    ball = s.surface == 1
    d = rays(s)
    b, dd = d @ centre, (d * d).sum(-1)
    discriminant = b * b - dd * (centre @ centre - radius**2)
    assert np.array_equal(ball, discriminant > 0)
    expected = (b[ball] - np.sqrt(discriminant[ball])) / dd[ball]
    assert s.depth[ball] == pytest.approx(expected, abs=1e-12)
    points = s.depth[ball][:, None] * d[ball]
    assert s.normal[ball] == pytest.approx((points - centre) / radius, abs=1e-9)
    assert s.albedo[ball] == pytest.approx(np.tile([0.8, 0.2, 0.1], (ball.sum(), 1)))


def test_turned_box_against_its_six_planes() -> None:
    centre, half = np.array([-0.3, 0.2, 3.0]), np.array([0.8, 0.5, 0.3])
    turn = np.array(rotation(35.0, 20.0, -15.0))
    s = scene(Box((-0.3, 0.2, 3.0), (0.8, 0.5, 0.3), rotation(35.0, 20.0, -15.0), RED))
    d = rays(s)
    nearest, normal = np.full(s.size, np.inf), np.zeros((*s.size, 3))
    for k in range(3):
        for sign in (-1.0, 1.0):
            n = sign * turn[:, k]
            with np.errstate(divide="ignore"):
                t = (n @ centre + half[k]) / (d @ n)
            local = (t[..., None] * d - centre) @ turn
            inside = (np.abs(local) <= half + 1e-9).all(-1) & (d @ n < 0) & (t < nearest)
            nearest[inside] = t[inside]
            normal[inside] = n
    hit = s.surface == 1
    assert hit.sum() > 150
    assert np.array_equal(hit, nearest < 5.0)
    assert s.depth[hit] == pytest.approx(nearest[hit], abs=1e-12)
    assert s.normal[hit] == pytest.approx(normal[hit], abs=1e-12)


def test_camera_turn_moves_maps_into_its_frame() -> None:
    # looking 90 degrees to the right, the side wall at x = 3 is the wall ahead
    s = scene(turn=rotation(90.0))
    assert s.depth[22, 30] == pytest.approx(3.0)
    assert s.normal[22, 30] == pytest.approx([0, 0, -1])


def test_point_light_falls_off_with_distance_and_angle() -> None:
    lamp: Triple = (0.5, -0.5, 3.0)
    s = scene(lighting=Lighting(Ambient((0.0, 0.0, 0.0)), (PointLight(lamp, (2.0, 1.0, 0.5)),)))
    d = rays(s)
    for row, column in ((22, 30), (44, 30), (22, 60), (0, 30), (30, 5)):
        to = np.array(lamp) - s.depth[row, column] * d[row, column]
        r = np.linalg.norm(to)
        expected = max(s.normal[row, column] @ to, 0.0) / r / r**2
        assert s.irradiance[row, column] == pytest.approx(expected * np.array([2.0, 1.0, 0.5]), rel=1e-12)
    # worked by hand: the far wall straight ahead is 2 m behind the lamp, 0.5 m to its left and below
    assert s.irradiance[22, 30, 0] == pytest.approx(2.0 * 2.0 / (4.0 + 0.25 + 0.25) ** 1.5)


def test_shadow_of_a_sphere_by_hand() -> None:
    """A ball of radius 0.5 halfway between a lamp and the far wall, all on the axis, shades a disc."""
    ball = Sphere((0.0, 1.0, 3.5), 0.3, RED)
    lamp = PointLight((0.0, 1.0, 2.0), (1.0, 1.0, 1.0))
    s = scene(ball, lighting=Lighting(Ambient((0.0, 0.0, 0.0)), (lamp,)))
    d = rays(s)
    # the cone that touches the ball: sin(a) = 0.3 / 1.5; on the wall, 3 m from the lamp, its radius is 3 tan(a)
    radius = 3.0 * math.tan(math.asin(0.2))
    wall = (s.surface == 0) & (s.normal[..., 2] == -1.0)
    x, y = s.depth * d[..., 0], s.depth * d[..., 1]
    distance = np.hypot(x, y - 1.0)
    dark = wall & (s.irradiance[..., 0] == 0.0)
    assert dark.sum() > 5
    assert np.array_equal(dark, wall & (distance < radius))


def test_shadow_of_a_box_against_marching_along_the_ray() -> None:
    box = Box((0.3, 1.0, 2.6), (0.4, 0.5, 0.3), rotation(25.0), RED)
    lamp = np.array([-1.0, -0.8, 2.0])
    light = PointLight((-1.0, -0.8, 2.0), (1.0, 1.0, 1.0))
    s = scene(box, lighting=Lighting(Ambient((0.0, 0.0, 0.0)), (light,)))
    position = s.depth[..., None] * rays(s)
    to = lamp - position
    faces = (s.normal * to).sum(-1) > 1e-9
    turn = np.array(rotation(25.0))
    # from just off the surface to the lamp; marching misses grazes thinner than its step, hence the two sizes
    steps = np.linspace(1e-3, 1.0, 3000)

    def blocked(grow: float) -> np.ndarray:
        local = (position[..., None, :] + steps[:, None] * to[..., None, :] - [0.3, 1.0, 2.6]) @ turn
        return np.asarray((np.abs(local) < np.array([0.4, 0.5, 0.3]) + grow).all(-1).any(-1))

    room = s.surface == 0
    lit = s.irradiance[..., 0] > 0
    assert not (lit & ~faces).any()
    surely_dark, surely_lit = room & faces & blocked(-2e-3), room & faces & ~blocked(2e-3)
    assert surely_dark.sum() > 50
    assert not lit[surely_dark].any()
    assert lit[surely_lit].all()
    # sides of the convex box are lit wherever they face the lamp
    assert lit[(s.surface == 1) & faces].all()


def test_sun_is_parallel_and_shades() -> None:
    direction = (0.0, -0.8, -0.6)
    ball = Sphere((0.0, 0.9, 3.0), 0.3, RED)
    s = scene(ball, lighting=Lighting(Ambient((0.0, 0.0, 0.0)), suns=(SunLight(direction, (1.0, 2.0, 3.0)),)))
    floor = (s.surface == 0) & (s.normal[..., 1] == -1.0)
    lit = floor & (s.irradiance[..., 0] > 0)
    assert s.irradiance[lit] == pytest.approx(np.tile([0.8, 1.6, 2.4], (lit.sum(), 1)))
    position = s.depth[..., None] * rays(s) - np.array([0.0, 0.9, 3.0])
    along = position @ np.array(direction)
    aside = np.sqrt((position**2).sum(-1) - along**2)
    assert np.array_equal(floor & ~lit, floor & (aside < 0.3) & (along < 0))
    assert (floor & ~lit).sum() > 5


def test_window_lets_the_sun_in_where_it_is_open() -> None:
    direction = (0.0, -0.6, -0.8)
    # in the back wall z = -1; a point is lit if its ray leaves there, |x - 0.01| < 0.5 in two panes, y in [-1.2, 0.2)
    window = Window(4, (0.01, -0.5), (0.5, 0.7), (2, 1), 0.2)
    s = scene(lighting=Lighting(Ambient((0.0, 0.0, 0.0)), suns=(SunLight(direction, (1.0, 1.0, 1.0), window),)))
    p = s.depth[..., None] * rays(s)
    t = (p[..., 2] + 1.0) / 0.8
    x, y = p[..., 0], p[..., 1] - 0.6 * t
    pane = (x + 0.49) * 2.0
    open_ = (pane >= 0) & (pane < 2) & (pane - np.floor(pane) >= 0.2) & (y >= -1.2 + 0.2 * 1.4) & (y < 0.2)
    faces = s.normal @ np.array(direction) > 0
    lit = s.irradiance[..., 0] > 0
    assert lit.sum() > 20
    assert np.array_equal(lit, open_ & faces)


def test_ambient_light_by_hand() -> None:
    plain = scene(lighting=Lighting(Ambient((0.2, 0.3, 0.4))))
    assert plain.irradiance == pytest.approx(np.broadcast_to([0.2, 0.3, 0.4], (*SIZE, 3)))
    sloped = scene(lighting=Lighting(Ambient((1.0, 1.0, 1.0), slope=0.4)))
    # up: all of it; sideways: less half the slope; down: less the slope
    assert sloped.irradiance[44, 30, 0] == pytest.approx(1.0)
    assert sloped.irradiance[22, 30, 0] == pytest.approx(0.8)
    assert sloped.irradiance[0, 30, 0] == pytest.approx(0.6)
    corners = scene(lighting=Lighting(Ambient((1.0, 1.0, 1.0), corner=0.5, reach=0.3)))
    # the middle of the far wall is 3 m from both side walls, 1.5 m from floor and ceiling, and in its own wall
    expected = (1 - 0.15 / 3.3) * (1 - 0.15 / 1.8) * (1 - 0.15 / 10.3)
    assert corners.irradiance[22, 30, 0] == pytest.approx(expected)
    wall = corners.normal[..., 2] == -1.0
    assert corners.irradiance[22, 30, 0] == pytest.approx(corners.irradiance[wall].max())
    assert corners.irradiance[wall].min() < 0.5 * expected


def test_lights_add_up_and_scale() -> None:
    ambient, lamp = Ambient((0.1, 0.2, 0.3), 0.3, 0.2), PointLight((0.5, -0.5, 3.0), (2.0, 1.0, 0.5))
    sun = SunLight((0.0, -0.8, -0.6), (1.0, 1.0, 0.5))
    ball = Sphere((0.0, 0.9, 3.0), 0.3, RED)
    both = Lighting(ambient, (lamp,), (sun,))
    parts = [Lighting(ambient), Lighting(Ambient((0, 0, 0)), (lamp,)), Lighting(Ambient((0, 0, 0)), (), (sun,))]
    total = sum(scene(ball, lighting=p).irradiance for p in parts)
    whole = scene(ball, lighting=both).irradiance
    assert whole == pytest.approx(total)
    assert scene(ball, lighting=both.scaled(2.5)).irradiance == pytest.approx(2.5 * whole)


def test_a_light_never_changes_albedo_or_geometry() -> None:
    ball = Sphere((0.0, 0.9, 3.0), 0.3, RED)
    a, b = scene(ball), scene(ball, lighting=Lighting(Ambient((0.3, 0.3, 0.3))))
    assert np.array_equal(a.albedo, b.albedo)
    assert np.array_equal(a.depth, b.depth)
    assert not a.linear.any()
