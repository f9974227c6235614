"""Own data with a dataset.toml: the card, ids, formats, depth kinds, and damage."""

from __future__ import annotations

import json
import pickle
import tomllib
from collections.abc import Callable
from pathlib import Path

import h5py
import imagecodecs
import numpy as np
import pytest

from reasonx_eval.datasets.folder import Folder
from reasonx_eval.datasets.formats.card import EXAMPLE, MINIMAL, Card, read_card
from reasonx_eval.errors import DataError, SampleError, UsageError
from reasonx_eval.io.images import write_npy, write_png
from reasonx_eval.types import FIRST

H, W = 6, 8
DEPTH = (np.arange(H * W).reshape(H, W) * 100).astype(np.uint16)  # millimetres; pixel (0, 0) is missing


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("kitchen/2", "kitchen/10", "hall/1"):
        write_png(tmp_path / "rgb" / f"{name}.png", np.full((H, W, 3), 90, np.uint8))
        write_png(tmp_path / "depth" / f"{name}.png", DEPTH)
    return tmp_path


def card(root: Path, text: str) -> Path:
    (root / "dataset.toml").write_text(text)
    return root


def test_the_examples_are_valid_cards() -> None:
    Card.model_validate(tomllib.loads(MINIMAL))
    everything = EXAMPLE.replace("\n# ", "\n")
    assert Card.model_validate(tomllib.loads(everything)).depth is not None


def test_minimal_card(root: Path) -> None:
    data = Folder(card(root, MINIMAL))
    assert data.name == "my-set"
    assert list(data.ids) == ["hall/1", "kitchen/10", "kitchen/2"]
    depth = data.load("hall/1").targets["depth"]
    np.testing.assert_allclose(depth.depth, DEPTH / 1000.0, rtol=1e-6)
    assert depth.valid.sum() == H * W - 1
    assert depth.intrinsics is None
    assert data.files("hall/1") == (root / "rgb/hall/1.png", root / "depth/hall/1.png")


def test_no_card_shows_a_whole_one(root: Path) -> None:
    with pytest.raises(DataError) as caught:
        Folder(root)
    assert MINIMAL in str(caught.value)
    with pytest.raises(DataError, match="no such folder"):
        Folder(root / "nowhere")
    with pytest.raises(UsageError, match="--root"):
        Folder(None)


def test_splits_lists_and_patterns(root: Path) -> None:
    (root / "test.txt").write_text("# held out\nkitchen/2\n\nhall/1\n")
    text = MINIMAL + '\n[splits]\ntest = "test.txt"\nkitchens = "kitchen/*"\n'
    assert list(Folder(card(root, text), "test").ids) == ["kitchen/2", "hall/1"]
    assert list(Folder(root, "kitchens").ids) == ["kitchen/10", "kitchen/2"]
    assert Folder(root).splits == ("all", "test", "kitchens")
    assert Folder(root, "test").ids_digest != Folder(root, "kitchens").ids_digest
    with pytest.raises(UsageError, match="kitchens"):
        Folder(root, "kitchen")


@pytest.mark.parametrize(
    ("listing", "message"),
    [("", "empty"), ("a\na\n", "twice"), ("../secret\n", "not a safe"), (None, "missing")],
)
def test_bad_lists(root: Path, listing: str | None, message: str) -> None:
    card(root, MINIMAL + '\n[splits]\ntest = "test.txt"\n')
    if listing is not None:
        (root / "test.txt").write_text(listing)
    with pytest.raises(DataError, match=message):
        Folder(root, "test")


def test_an_id_of_the_list_without_files_is_an_error_of_its_sample(root: Path) -> None:
    (root / "test.txt").write_text("hall/1\nhall/2\n")
    data = Folder(card(root, MINIMAL + '\n[splits]\ntest = "test.txt"\n'), "test")
    with pytest.raises(SampleError, match=r"rgb/hall/2\.png.*missing"):
        data.load("hall/2")
    data.load("hall/1")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name = 'x'\nimages = 'rgb/{id}.png'\ncolour = 1", "colour: unknown key"),
        ("name = 'x'\nimages = 'rgb/{id}.png'\n[depth]\npath='d/{id}.png'\nscales = 1", r"depth\.scales: unknown key"),
        ("name = 'x'\nimages = 'rgb/1.png'", "no {id} in it"),
        ("name = 'x'\nimages = '../rgb/{id}.png'", "inside the dataset's folder"),
        ("name = 'x'\nimages = '/rgb/{id}.png'", "inside the dataset's folder"),
        ("images = 'rgb/{id}.png'", "name: Field required"),
        ("name = 'x'\nimages = 'r/{id}.png'\n[depth]\npath='d/{id}.png'\nscale = 0", "greater than 0"),
        ("name = 'x'\nimages = 'r/{id}.png'\n[depth]\npath='d/{id}.png'\nkind = 'distance'", "needs intrinsics"),
        ("name = 'x'\nimages = 'r/{id}.png'\n[normals]\npath='d/{id}.png'\nframe = 'blender'", "opengl"),
        ("name = 'x'\nimages = 'r/{id}.png'\ngroup = '(a)(b)'", "expected one"),
        ("name = 'x'\nimages = 'r/{id}.png'\ngroup = '('", "not a regular expression"),
        ("name = ", "not valid TOML"),
    ],
)
def test_bad_cards(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_card(card(tmp_path, text) / "dataset.toml")


def _h5(path: Path, array: np.ndarray) -> None:
    with h5py.File(path, "w") as file:
        file["scene/depth"] = array


WRITERS: dict[str, Callable[[Path, np.ndarray], object]] = {
    "png": write_png,
    "npy": write_npy,
    "npz": lambda path, array: np.savez(path, depth=array),
    "h5": _h5,
    "tif": lambda path, array: path.write_bytes(imagecodecs.tiff_encode(array)),
}


@pytest.mark.parametrize("suffix", WRITERS)
def test_formats_hold_the_same_values(root: Path, suffix: str) -> None:
    for name in ("kitchen/2", "kitchen/10", "hall/1"):
        WRITERS[suffix](root / "depth" / f"{name}.{suffix}", DEPTH)
    data = Folder(card(root, MINIMAL.replace("depth/{id}.png", "depth/{id}." + suffix)))
    np.testing.assert_allclose(data.load("hall/1").targets["depth"].depth, DEPTH / 1000.0, rtol=1e-6)


def test_keys_of_archives(root: Path) -> None:
    np.savez(root / "depth/hall/1.npz", near=DEPTH, far=DEPTH * 2)
    text = MINIMAL.replace("depth/{id}.png", "depth/{id}.npz")
    with pytest.raises(SampleError, match="far, near"):
        Folder(card(root, text)).load("hall/1")
    data = Folder(card(root, text + '\nkey = "far"\n'))
    np.testing.assert_allclose(data.load("hall/1").targets["depth"].depth, DEPTH / 500.0, rtol=1e-6)


def test_disparity_and_distance_become_depth(root: Path) -> None:
    data = Folder(card(root, MINIMAL + '\nkind = "disparity"\n'))
    depth = data.load("hall/1").targets["depth"]
    np.testing.assert_allclose(depth.depth[depth.valid], 1.0 / (DEPTH[DEPTH > 0] * 0.001), rtol=1e-6)
    assert depth.valid.sum() == H * W - 1

    data = Folder(card(root, MINIMAL + '\nkind = "distance"\nintrinsics = [4.0, 5.0, 3.0, 2.0]\n'))
    depth = data.load("hall/1").targets["depth"]
    row, column = 5, 7
    length = np.sqrt(((column - 3) / 4) ** 2 + ((row - 2) / 5) ** 2 + 1)
    assert depth.depth[row, column] == pytest.approx(DEPTH[row, column] / 1000 / length, rel=1e-6)
    np.testing.assert_array_equal(depth.intrinsics, [[4, 0, 3], [0, 5, 2], [0, 0, 1]])


def test_mask_invalid_values_and_intrinsics_files(root: Path) -> None:
    mask = np.ones((H, W), np.uint8)
    mask[0] = 0
    write_png(root / "mask" / "hall/1.png", mask)
    (root / "calib").mkdir()
    (root / "calib" / "hall").mkdir()
    (root / "calib" / "hall" / "1.txt").write_text("4 0 3\n0 5 2\n0 0 1\n")
    text = MINIMAL + 'invalid = [0, 1000]\nmask = "mask/{id}.png"\nintrinsics = "calib/{id}.txt"\n'
    depth = Folder(card(root, text)).load("hall/1").targets["depth"]
    np.testing.assert_array_equal(depth.valid, (DEPTH != 1000) & (mask > 0))
    np.testing.assert_array_equal(depth.intrinsics, [[4, 0, 3], [0, 5, 2], [0, 0, 1]])
    (root / "calib" / "hall" / "1.txt").write_text("4 5 3\n")
    with pytest.raises(SampleError, match="3 numbers"):
        Folder(root).load("hall/1")


def test_groups(root: Path) -> None:
    assert Folder(card(root, MINIMAL)).load("hall/1", []).group is None
    assert Folder(card(root, 'group = "prefix"\n' + MINIMAL)).load("hall/1", []).group == "hall"
    assert Folder(card(root, "group = '^(..)'\n" + MINIMAL)).load("hall/1", []).group == "ha"


def test_normals_must_be_what_the_card_says(root: Path) -> None:
    text = "name = 'x'\nimages = 'rgb/{id}.png'\n[normals]\npath = 'n/{id}.png'\nencoding = 'png16'\n"
    write_png(root / "n" / "hall/1.png", np.full((H, W, 3), 128, np.uint8))
    with pytest.raises(SampleError, match="png16"):
        Folder(card(root, text)).load("hall/1")
    write_png(root / "n" / "hall/1.png", np.full((H, W, 3), (32768, 32768, 65535), np.uint16))
    normals = Folder(root).load("hall/1").targets["normals"]
    np.testing.assert_allclose(normals.normal[0, 0], [0, 0, 1], atol=1e-4)
    assert normals.valid.all()


def test_judgements_in_the_iiw_format(root: Path) -> None:
    points = [{"id": 5, "x": 0.25, "y": 0.5, "opaque": True}, {"id": 9, "x": 0.75, "y": 0.5, "opaque": True}]
    comparison = {"point1": 5, "point2": 9, "darker": "1", "darker_score": 1.5}
    path = root / "json" / "hall" / "1.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"intrinsic_points": points, "intrinsic_comparisons": [comparison]}))
    text = "name = 'x'\nimages = 'rgb/{id}.png'\n[judgements]\npath = 'json/{id}.json'\n"
    target = Folder(card(root, text)).load("hall/1").targets["judgements"]
    np.testing.assert_array_equal(target.points[target.pairs[0]], [[0.25, 0.5], [0.75, 0.5]])
    assert target.darker.tolist() == [FIRST]
    assert target.weight.tolist() == [1.5]


def test_the_card_is_part_of_the_identity(root: Path) -> None:
    data = Folder(card(root, MINIMAL))
    assert Folder(root, "all", data.options).options == data.options
    card(root, MINIMAL.replace("0.001", "0.01"))
    with pytest.raises(DataError, match="edited"):
        Folder(root, "all", data.options)


def test_the_path_of_a_card_may_be_the_root(root: Path) -> None:
    card(root, MINIMAL).joinpath("dataset.toml").rename(root / "other.toml")
    data = Folder(root / "other.toml")
    assert data.root == root
    assert pickle.loads(pickle.dumps(data)).load("hall/1").image.shape == (H, W, 3)


def test_images_pattern_that_matches_nothing(root: Path) -> None:
    with pytest.raises(DataError, match="no image matches"):
        Folder(card(root, MINIMAL.replace("rgb/{id}.png", "rgb/{id}.jpg")))
    with pytest.raises(DataError, match="no folder"):
        Folder(card(root, MINIMAL.replace("rgb/{id}.png", "photos/{id}.png")))


def test_an_id_used_twice_in_a_pattern(tmp_path: Path) -> None:
    write_png(tmp_path / "a" / "a_rgb.png", np.zeros((H, W, 3), np.uint8))
    write_png(tmp_path / "b" / "a_rgb.png", np.zeros((H, W, 3), np.uint8))
    assert list(Folder(card(tmp_path, 'name = "x"\nimages = "{id}/{id}_rgb.png"\n')).ids) == ["a"]


@pytest.mark.parametrize("other", ["hall/1.PNG", "hall/1.Jpeg", "hall/1.tiff", "Hall/1.webp"])
def test_photos_that_are_nearly_named_as_the_card_says_are_named(root: Path, other: str) -> None:
    path = root / "rgb" / other
    path.parent.mkdir(exist_ok=True)
    (root / "rgb/hall/1.png").rename(path)
    data = Folder(card(root, MINIMAL))
    assert list(data.ids) == ["kitchen/10", "kitchen/2"]
    near, orphans = data.overlooked()
    assert near == ("photos not read, as letter case or suffix is not that of "
                    f'images = "rgb/{{id}}.png": 1 (rgb/{other})')  # fmt: skip
    assert orphans == "depth files without a photo rgb/{id}.png: 1 (depth/hall/1.png)"


def test_what_a_system_left_is_no_sample_and_nothing_is_said_of_it(root: Path) -> None:
    for name in ("rgb/._0001.png", "rgb/hall/.DS_Store", "rgb/__MACOSX/2.png", "depth/._9.png", "rgb/hall/3.png.part"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(b"Mac OS X")
    data = Folder(card(root, MINIMAL))
    assert list(data.ids) == ["hall/1", "kitchen/10", "kitchen/2"]
    assert data.overlooked() == []


def test_folders_that_a_user_linked_are_read(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    far = tmp_path_factory.mktemp("far")
    for kind in ("rgb", "depth"):
        (root / kind / "hall").rename(far / kind)
        (root / kind / "hall").symlink_to(far / kind)
    assert list(Folder(card(root, MINIMAL)).ids) == ["hall/1", "kitchen/10", "kitchen/2"]


def test_letter_case_of_folders_and_splits(root: Path) -> None:
    text = MINIMAL + '\n[splits]\nkitchens = "Kitchen/*"\nlist = "list.txt"\n'
    (root / "rgb" / "Kitchen").mkdir()
    write_png(root / "rgb/Kitchen/7.png", np.full((H, W, 3), 90, np.uint8))
    (root / "list.txt").write_text("hall/1\n")
    data = Folder(card(root, text), "kitchens")
    assert list(data.ids) == ["Kitchen/7"]
    [said] = [s for s in data.overlooked() if "split" in s]
    assert said == "photos not read, as letter case is not that of the split's 'Kitchen/*': 2 (kitchen/10, kitchen/2)"
    assert Folder(root, "list").overlooked() == ()
    (root / "rgb").rename(root / "RGB")
    with pytest.raises(DataError, match=r"no folder .*rgb, where the card says the images are; there is RGB"):
        Folder(root)


def test_a_map_under_a_near_name_is_named(root: Path) -> None:
    (root / "depth/hall/1.png").rename(root / "depth/hall/1.PNG")
    data = Folder(card(root, MINIMAL))
    with pytest.raises(SampleError, match=r"1\.png: file is missing; there is 1\.PNG"):
        data.load("hall/1")


def test_a_pfm_and_a_batch_of_one_are_maps_too(root: Path) -> None:
    value = np.linspace(0.5, 4, H * W, dtype=np.float32).reshape(H, W)
    (root / "depth/hall/1.pfm").write_bytes(f"Pf\n{W} {H}\n-1\n".encode() + np.flipud(value).tobytes())
    write_npy(root / "depth/hall/1.npy", value[None, None])
    for suffix in ("pfm", "npy"):
        text = MINIMAL.replace("depth/{id}.png", f"depth/{{id}}.{suffix}").replace("0.001", "1.0")
        assert np.array_equal(Folder(card(root, text)).load("hall/1").targets["depth"].depth, value)


def test_byte_order_marks_and_windows_line_ends(root: Path) -> None:
    mark = "\ufeff"
    text = MINIMAL.replace("scale = 0.001", 'scale = 0.001\nintrinsics = "k/{id}.txt"')
    text += '\n[splits]\ntest = "test.txt"\n'
    (root / "dataset.toml").write_bytes((mark + text.replace("\n", "\r\n")).encode())
    (root / "test.txt").write_bytes((mark + "kitchen/2\r\nhall/1\r\n").encode())
    (root / "k/hall").mkdir(parents=True)
    (root / "k/hall/1.txt").write_bytes((mark + "5.0, 6.0\r\n4.0, 3.0\r\n").encode())
    data = Folder(root, "test")
    assert list(data.ids) == ["kitchen/2", "hall/1"]
    assert data.load("hall/1").intrinsics.tolist() == [[5, 0, 4], [0, 6, 3], [0, 0, 1]]
