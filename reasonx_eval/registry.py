"""Names to classes, imported on first use; plug-ins through entry points; did-you-mean."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from reasonx_eval.errors import ReasonXError, UsageError, unknown

#: dataset name -> "module:Class"
DATASETS: Mapping[str, str] = {
    "iiw": "reasonx_eval.datasets.iiw:IIW",
    "nyuv2": "reasonx_eval.datasets.nyuv2:NYUv2",
    "nyuv2-normals": "reasonx_eval.datasets.nyuv2_normals:NYUv2Normals",
    "eth3d": "reasonx_eval.datasets.eth3d:ETH3D",
    "diode": "reasonx_eval.datasets.diode:DIODE",
    "flat": "reasonx_eval.datasets.flat:Flat",
    "mit-intrinsic": "reasonx_eval.datasets.mit:MITIntrinsic",
    "folder": "reasonx_eval.datasets.folder:Folder",
    "scenes-synthetic": "reasonx_eval.datasets.scenes.dataset:ScenesSynthetic",
    "scenes-wild": "reasonx_eval.datasets.scenes.dataset:ScenesWild",
    "scenes-broad": "reasonx_eval.datasets.scenes.dataset:ScenesBroad",
}

#: model name -> "module:factory"; a factory takes keyword options and returns a Model
MODELS: Mapping[str, str] = {
    "oracle": "reasonx_eval.models.oracle:Oracle",
    "constant": "reasonx_eval.models.baselines:Constant",
    "image-as-albedo": "reasonx_eval.models.baselines:ImageAsAlbedo",
    "retinex": "reasonx_eval.models.baselines:Retinex",
    "plane-depth": "reasonx_eval.models.baselines:PlaneDepth",
    "mean-normal": "reasonx_eval.models.baselines:MeanNormal",
}


def plugins(group: str) -> dict[str, EntryPoint]:
    """Entry points of ``reasonx_eval.models`` or ``reasonx_eval.datasets`` that others installed."""
    return {e.name: e for e in entry_points(group=group)}


def resolve(group: str, table: Mapping[str, str], what: str, name: str) -> Any:
    """The object behind a registered or plugged-in name.

    Raises
    ------
    UsageError
        Unknown name (with the nearest match), or a plug-in that can't be imported.
    """
    if name in table:
        module, _, attribute = table[name].partition(":")
        return getattr(import_module(module), attribute)
    extra = plugins(group)
    if name in extra:
        try:
            return extra[name].load()
        except Exception as error:
            raise UsageError(f"the plug-in can't be imported: {type(error).__name__}: {error}",
                             where=f"{what} {name} ({extra[name].value})") from error  # fmt: skip
    raise unknown(what, name, [*table, *extra])


def describe_failure(error: Exception) -> str:
    """One line for `list`: why a plug-in is not available."""
    return error.what if isinstance(error, ReasonXError) else f"{type(error).__name__}: {error}"
