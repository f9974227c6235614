"""A gallery as one HTML file: no network, no script, pictures inside; everything from a file is escaped."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reasonx_eval.io.files import write_text
from reasonx_eval.metrics.table import metric_info
from reasonx_eval.report.gallery import Entry, Gallery, caption, letters, show_number
from reasonx_eval.report.pictures import COLOUR_MAPS, Panel, colours, depth_span
from reasonx_eval.report.tables import arrow, format_value, printable

#: the last entry of a palette: no ground truth, or outside the protocol's mask
_NOTHING = (150, 150, 150)


def write_page(path: Path, gallery: Gallery) -> None:
    """Write the gallery as a self-contained page, dark or light as the reader's system, down to phone width."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(loader=PackageLoader("reasonx_eval.report"), autoescape=True, undefined=StrictUndefined,
                              trim_blocks=True, lstrip_blocks=True)  # fmt: skip
    page = environment.get_template("gallery.html").render(_context(gallery))
    write_text(path, page)


def _context(gallery: Gallery) -> dict[str, Any]:
    first = gallery.runs[0].result
    info = metric_info(gallery.metric)
    names = " and ".join(run.name for run in gallery.runs)
    return {
        "title": printable(f"{first.protocol.name}@{first.protocol.version}: {names}"),
        "order": gallery.order,
        "runs": [_run(gallery, k) for k in range(len(gallery.runs))],
        "heads": [letter or "value" for letter in letters(gallery)],
        "metric": f"{info.label} {arrow(gallery.metric)}",
        "signatures": list(dict.fromkeys(printable(r.result.signature) for r in gallery.runs)),
        "notes": [printable(n) for n in gallery.notes],
        "pairs": not gallery.unit,
        "unit": gallery.unit,
        "ticks": [f"{gallery.limit * share:.3g}" for share in (0, 0.25, 0.5, 0.75, 1)],
        "bars": {style: _gradient(name) for style, name in COLOUR_MAPS.items()},
        "depths": any(p.style == "depth" for p in gallery.entries[0].panels),
        "entries": [_entry(gallery, entry) for entry in gallery.entries],
    }  # fmt: skip


def _run(gallery: Gallery, k: int) -> dict[str, str]:
    run = gallery.runs[k]
    value, interval = format_value(run.result.aggregate[gallery.metric])
    return {"letter": letters(gallery)[k], "name": printable(run.name),
            "value": f"{value} {metric_info(gallery.metric).unit}".rstrip(), "interval": interval,
            "n": f"{run.result.n_scored} of {run.result.n_total}"}  # fmt: skip


def _entry(gallery: Gallery, entry: Entry) -> dict[str, Any]:
    low, high = span = depth_span(entry.panels)
    pictures = []
    for panel, text in zip(entry.panels, caption(gallery, entry), strict=True):
        if panel.title == "photo":
            text = ""
        elif panel.style == "depth" and panel.title == "ground truth":
            text = f"{low:.3g} to {high:.3g} m"
        height, width = panel.value.shape[:2]
        pictures.append({"title": panel.title, "caption": printable(text), "height": height, "width": width,
                         "source": _encoded(panel, span, gallery.limit),
                         "alt": printable(f"{panel.title} of {entry.sample_id}")})  # fmt: skip
    numbers = [{"label": f"{metric_info(name).label} {arrow(name)}", "chosen": name == gallery.metric,
                "values": [show_number(v, metric_info(name).unit) for v in values]}
               for name, values in entry.numbers.items()]  # fmt: skip
    return {"id": printable(entry.sample_id), "why": entry.why, "pictures": pictures, "numbers": numbers}


def _encoded(panel: Panel, span: tuple[float, float], limit: float) -> str:
    """A panel as a data: address; maps of one value a pixel without loss, the rest as JPEG."""
    from PIL import Image

    buffer = io.BytesIO()
    if panel.style in COLOUR_MAPS:
        low, high = span if panel.style == "depth" else (0.0, limit)
        picture = Image.fromarray(_indices(panel.value, low, high), "P")
        picture.putpalette(_palette(COLOUR_MAPS[panel.style]).ravel().tolist())
        picture.save(buffer, "PNG", optimize=True)
        kind = "png"
    else:
        value = colours(panel)
        rgb = value if value.dtype == np.uint8 else np.round(np.asarray(value, dtype=np.float64) * 255).astype(np.uint8)
        Image.fromarray(rgb).save(buffer, "JPEG", quality=90, optimize=True)
        kind = "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _indices(value: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    """0 to 254 over [low, high], 255 where there is no value."""
    scaled = np.clip((value.astype(np.float64) - low) / max(high - low, 1e-12), 0, 1) * 254
    return np.where(np.isfinite(scaled), np.round(np.nan_to_num(scaled)), 255).astype(np.uint8)


def _palette(name: str) -> NDArray[np.uint8]:
    from matplotlib import colormaps

    table = np.round(colormaps[name](np.linspace(0, 1, 255))[:, :3] * 255).astype(np.uint8)
    return np.concatenate([table, np.array([_NOTHING], dtype=np.uint8)])


def _gradient(name: str) -> str:
    stops = ", ".join("#{:02x}{:02x}{:02x}".format(*_palette(name)[k]) for k in np.linspace(0, 254, 17).astype(int))
    return f"linear-gradient(to right, {stops})"
