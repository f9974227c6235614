"""Writers of files in the official formats of data sets, for tests and benchmarks; each lies with its reader."""

from reasonx_eval.datasets.diode import SHAPE as DIODE_SHAPE
from reasonx_eval.datasets.diode import DiodeFiles, write_diode
from reasonx_eval.datasets.eth3d import eth3d_names, write_eth3d, write_tar
from reasonx_eval.datasets.examples import millimetres, write_jpeg
from reasonx_eval.datasets.formats.nyuv2_layouts import SHAPE as NYU_SHAPE
from reasonx_eval.datasets.iiw import iiw_json, write_iiw
from reasonx_eval.datasets.mit_intrinsic import write_mit
from reasonx_eval.datasets.nyuv2 import NyuImage, write_nyuv2_bts, write_nyuv2_extracted, write_nyuv2_mat
from reasonx_eval.datasets.nyuv2_normals import write_nyuv2_normals
from reasonx_eval.io.images import write_npy, write_png

__all__ = [
    "DIODE_SHAPE", "NYU_SHAPE", "DiodeFiles", "NyuImage", "eth3d_names", "iiw_json", "millimetres", "write_diode",
    "write_eth3d", "write_iiw", "write_jpeg", "write_mit", "write_npy", "write_nyuv2_bts", "write_nyuv2_extracted",
    "write_nyuv2_mat", "write_nyuv2_normals", "write_png", "write_tar",
]  # fmt: skip
