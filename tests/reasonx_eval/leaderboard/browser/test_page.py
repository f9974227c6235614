"""The leaderboard's page in a real browser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from reasonx_eval.leaderboard.generate import generate, write
from reasonx_eval.protocols.protocol import get_protocol
from tests.reasonx_eval.leaderboard.browser.conftest import Open
from tests.reasonx_eval.leaderboard.makers import crowd, draw, make, with_pictures
from tests.reasonx_eval.leaderboard.makers import write as write_files

TABLE = "#depth-nyuv2-1-disparity-affine"
HOSTILE = "<script>document.title='owned'</script><img src=x onerror=alert(1)>"


@pytest.fixture(scope="session")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve models under two protocols, a third tuned; a partial, a trained and a hostile one; published rows."""
    folder = tmp_path_factory.mktemp("site")
    rules = get_protocol("depth/nyuv2")
    more = [
        with_pictures(make("seen", draw(rules, 30, 0.2, "s"), "depth/nyuv2", trained_on=["NYUv2"])),
        make("part", draw(rules, 10, 0.2, "p"), "depth/nyuv2", n_total=30),
        make(HOSTILE, draw(rules, 30, 0.5, "h"), "depth/nyuv2", licence=HOSTILE, reward=HOSTILE, base="model-000"),
    ]
    write_files(folder / "results", [*crowd(12, 2, n=30), *more])
    write(generate(folder / "results", folder))
    return folder / "index.html"


def rows(page: Any, table: str = TABLE) -> list[str]:
    """Names of the rows that are shown, from top to bottom."""
    return list(page.eval_on_selector_all(f"{table} tbody tr", "rows => rows.filter(r => r.checkVisibility())"
                                          ".map(r => r.querySelector('th a').textContent)"))  # fmt: skip


def column(page: Any, name: str, table: str = TABLE) -> list[str]:
    script = ("(t, name) => { const k = [...t.tHead.rows[0].cells].findIndex(c => c.dataset.k === name);"
              "return [...t.tBodies[0].rows].map(r => r.cells[k].firstChild.nodeValue.trim()) }")  # fmt: skip
    return list(page.eval_on_selector(table, script, name))


def head(page: Any, key: str, table: str = TABLE) -> Any:
    return page.locator(f"{table} th[data-k='{key}'] button")


def test_it_opens_with_every_row_and_a_hostile_name_as_text(page_file: Path, show: Open) -> None:
    page = show(page_file)
    assert page.title() == "ReasonX leaderboard"
    names = rows(page)
    assert len(names) == 15
    assert HOSTILE in names
    assert page.locator("script").count() == 1
    assert page.locator("img[onerror]").count() == 0
    assert page.locator(f"{TABLE} caption").text_content().startswith("depth/nyuv2@1|n:30|")


def test_sorting_by_mouse_goes_best_first_then_reversed_then_back(page_file: Path, show: Open) -> None:
    page = show(page_file)
    page.locator("[data-together]").uncheck()
    before = rows(page)
    for key, up in (("abs_rel", False), ("delta1", True)):
        cell = page.locator(f"{TABLE} th[data-k='{key}']")
        assert cell.get_attribute("aria-sort") == "none"
        head(page, key).click()
        values = [float(v) for v in column(page, key)]
        assert values == sorted(values, reverse=up)
        assert cell.get_attribute("aria-sort") == ("descending" if up else "ascending")
        head(page, key).click()
        values = [float(v) for v in column(page, key)]
        assert values == sorted(values, reverse=not up)
        head(page, key).click()
        assert rows(page) == before
        assert cell.get_attribute("aria-sort") == "none"


def test_unranked_rows_sort_last_by_rank_and_names_by_letter(page_file: Path, show: Open) -> None:
    page = show(page_file)
    page.locator("[data-together]").uncheck()
    head(page, "rank").click()
    ranks = column(page, "rank")
    assert ranks[-2:] == ["-", "-"]
    ends = [tuple(map(int, (r.split("-") * 2)[:2])) for r in ranks[:-2]]
    assert ends == sorted(ends)
    head(page, "model").click()
    names = [n.lower() for n in rows(page)]
    assert names == sorted(names)


def test_tuned_rows_stay_below_their_base_when_sorted(page_file: Path, show: Open) -> None:
    page = show(page_file)
    head(page, "abs_rel").click()
    names = rows(page)
    for base, tuned in (("model-003", "model-004"), ("model-006", "model-007")):
        assert names.index(tuned) == names.index(base) + 1
    page.locator("[data-together]").uncheck()
    values = [float(v) for v in column(page, "abs_rel")]
    assert values == sorted(values)


def test_sorting_by_the_difference_to_the_base(page_file: Path, show: Open) -> None:
    page = show(page_file)
    page.get_by_label("tuned models below their base").uncheck()
    page.get_by_label("sort by Δ to base").check()
    numbers = "t => [...t.tBodies[0].rows].map(r => r.cells[%d].querySelector('b')?.firstChild.nodeValue ?? null)"
    for key, up in (("abs_rel", False), ("delta1", True)):
        place = page.eval_on_selector(f"{TABLE} th[data-k='{key}']", "h => h.cellIndex")
        for best_first in (True, False):
            head(page, key).click()
            texts = page.eval_on_selector(TABLE, numbers % place)
            known = [t for t in texts if t is not None]
            assert len(known) == 5, "four tuned from the model before, and the hostile one"
            assert texts[5:] == [None] * 10, "rows without a base come last, either way"
            gaps = [float(t.split()[1].replace("\N{MINUS SIGN}", "-")) for t in known]
            assert min(gaps) < 0 < max(gaps)
            assert gaps == sorted(gaps, reverse=up == best_first)
    shown, address = rows(page), page.url.partition("#")[2]
    assert "by=base" in address
    assert rows(show(page_file, "#" + address)) == shown
    head(page, "rank").click()
    head(page, "n").click()
    assert len(rows(page)) == 15, "columns without differences sort by their values"
    page.get_by_label("sort by Δ to base").uncheck()
    assert "by=base" not in page.url


def test_the_base_is_not_offered_where_there_is_none(tmp_path: Path, show: Open) -> None:
    write_files(tmp_path / "results", [make("alone", draw(get_protocol("depth/nyuv2"), 30, 0.2, "a"), "depth/nyuv2")])
    write(generate(tmp_path / "results", tmp_path))
    page = show(tmp_path / "index.html")
    assert page.get_by_label("tuned models below their base").is_visible()
    assert not page.locator("[data-gains]").is_visible()


def test_everything_works_from_the_keyboard(page_file: Path, show: Open) -> None:
    page = show(page_file)
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.type") == "search"
    page.keyboard.type("model-00")
    assert len(rows(page)) == 12, "ten by name, two by the base that they were tuned from"
    assert page.locator("[role=status]").text_content().startswith("23 of ")
    page.keyboard.press("Escape")
    assert len(rows(page)) == 15
    head(page, "abs_rel").focus()
    page.keyboard.press("Enter")
    assert page.locator(f"{TABLE} th[data-k='abs_rel']").get_attribute("aria-sort") == "ascending"
    page.keyboard.press("Space")
    assert page.locator(f"{TABLE} th[data-k='abs_rel']").get_attribute("aria-sort") == "descending"
    summary = page.locator(".menu summary")
    summary.focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    assert page.locator(".menu input:not(:checked)").count() == 1
    page.keyboard.press("Escape")
    assert page.locator(".menu[open]").count() == 0


def test_filtering_hides_tables_without_a_match(page_file: Path, show: Open) -> None:
    page = show(page_file)
    page.locator("input[type=search]").fill("SEEN")
    assert rows(page) == ["seen"]
    assert rows(page, "#depth-eth3d-1-disparity-affine") == []
    assert not page.locator("#depth-eth3d-1").is_visible()
    page.locator("input[type=search]").fill("")
    assert page.locator("#depth-eth3d-1").is_visible()


def test_columns_can_be_chosen(page_file: Path, show: Open) -> None:
    page = show(page_file)
    page.locator(".menu summary").click()
    page.locator(".menu input[value=delta1]").uncheck()
    hidden = f"{TABLE} th[data-k=delta1]"
    assert not page.locator(hidden).is_visible()
    assert page.locator(f"{TABLE} th[data-k=abs_rel]").is_visible()
    k = page.eval_on_selector(hidden, "h => h.cellIndex")
    assert not page.locator(f"{TABLE} tbody tr:first-child > :nth-child({k + 1})").is_visible()
    page.locator(".menu input[value=delta1]").check()
    assert page.locator(hidden).is_visible()


def test_an_address_brings_back_sorting_filter_columns_and_place(page_file: Path, show: Open) -> None:
    page = show(page_file)
    page.locator("input[type=search]").fill("model-0")
    head(page, "delta1").click()
    page.locator(".menu summary").click()
    page.locator(".menu input[value=date]").uncheck()
    page.locator("[data-together]").uncheck()
    address, shown = page.url.partition("#")[2], rows(page)
    assert "sort=depth-nyuv2-1-disparity-affine:delta1:down" in address
    again = show(page_file, "#" + address)
    assert rows(again) == shown
    assert again.locator("input[type=search]").input_value() == "model-0"
    assert not again.locator(f"{TABLE} th[data-k=date]").is_visible()
    assert again.locator(f"{TABLE} th[data-k='delta1']").get_attribute("aria-sort") == "descending"
    assert not again.locator("[data-together]").is_checked()
    plain = show(page_file, "#depth-eth3d-1")
    assert plain.locator("#depth-eth3d-1").is_visible()
    assert plain.evaluate("scrollY") > 100


@pytest.mark.parametrize("hash", ["#sort=x:y:z&hide=<b>&at=<img src=x onerror=alert(1)>", "#at=__proto__&q=%00", "#%F",
                                  "#sort=depth-nyuv2-1-disparity-affine:abs_rel:sideways"])  # fmt: skip
def test_a_broken_address_is_ignored(page_file: Path, show: Open, hash: str) -> None:
    page = show(page_file, hash)
    assert page.locator(f"{TABLE} tbody tr").count() == 15


def test_dark_and_light_follow_the_system_and_the_button(page_file: Path, show: Open) -> None:
    background = "getComputedStyle(document.body).backgroundColor"
    light, dark = show(page_file), show(page_file, scheme="dark")
    assert light.evaluate(background) != dark.evaluate(background)
    button = light.locator("[data-theme-button]")
    button.click()
    assert button.text_content() == "Colours: light"
    button.click()
    assert light.evaluate(background) == dark.evaluate(background)
    light.reload()
    assert light.evaluate(background) == dark.evaluate(background), "the choice is kept"
    light.evaluate("localStorage.clear()")


@pytest.mark.parametrize("width", [390, 1280])
def test_only_tables_scroll_sideways(page_file: Path, show: Open, width: int) -> None:
    page = show(page_file, width=width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    box = page.locator(f"{TABLE} tbody tr:first-child th").bounding_box()
    page.eval_on_selector(f".scroll:has({TABLE})", "s => { s.scrollLeft = 400 }")
    moved = page.locator(f"{TABLE} tbody tr:first-child th").bounding_box()
    assert 0 <= moved["x"] <= box["x"], "the name stays in sight"


def test_it_is_readable_without_a_script(page_file: Path, show: Open) -> None:
    page = show(page_file, java_script_enabled=False)
    assert page.locator(f"{TABLE} tbody tr").count() == 15
    assert page.locator(f"{TABLE} tbody tr >> nth=14").is_visible()
    assert not page.locator(".bar").is_visible()
    assert page.locator("svg").first.is_visible()


def test_print_shows_every_row_and_no_controls(page_file: Path, show: Open) -> None:
    page = show(page_file, scheme="dark")
    page.emulate_media(media="print")
    assert not page.locator(".bar").is_visible()
    assert len(rows(page)) == 15
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(253, 253, 252)"
    assert len(page.pdf()) > 10_000


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_axe_finds_nothing(page_file: Path, show: Open, scheme: str, width: int) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    page = show(page_file, scheme=scheme, width=width, bypass_csp=True)
    found = axe.Axe().run(page)
    assert [(v["id"], v["impact"], v["nodes"][0]["html"][:200]) for v in found.response["violations"]] == []


@pytest.mark.slow
def test_two_hundred_models_under_twelve_protocols_stay_usable(
    tmp_path_factory: pytest.TempPathFactory, show: Open
) -> None:
    from reasonx_eval.leaderboard.board import Board
    from reasonx_eval.leaderboard.page import render_page
    from reasonx_eval.leaderboard.tables import make_tables

    (table,) = make_tables(crowd(200, 1, n=20))
    path = tmp_path_factory.mktemp("crowd") / "index.html"
    path.write_text(render_page(Board((table,) * 12, (), ()), "./results"), encoding="utf-8")
    page = show(path)
    assert page.locator("tbody tr").count() == 2400
    assert len(rows(page)) == 40
    page.locator("input[type=search]").fill("model-19")
    assert len(rows(page)) == 10
    page.locator("input[type=search]").fill("")
    page.locator(".more").first.click()
    assert len(rows(page)) == 200
    page.locator("[data-together]").uncheck()
    head(page, "delta1").click()
    values = [float(v) for v in column(page, "delta1")]
    assert values == sorted(values, reverse=True)
    page.emulate_media(media="print")
    assert len(rows(page)) == 200
