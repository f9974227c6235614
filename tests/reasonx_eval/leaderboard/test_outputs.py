"""Markdown, CSV, JSON and the page's text: everything escaped, the same bytes again, stale files noticed."""

from __future__ import annotations

import csv
import html.parser
import io
import json
import re
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from reasonx_eval.cli.main import cli, run_cli
from reasonx_eval.errors import NotComparable, UsageError
from reasonx_eval.io.results import Value
from reasonx_eval.leaderboard.board import Board, published_tables
from reasonx_eval.leaderboard.document import BoardOut, board_csv, board_document
from reasonx_eval.leaderboard.formatting import seconds_text, shown_value, signed
from reasonx_eval.leaderboard.generate import check, generate, write
from reasonx_eval.leaderboard.page import render_page
from reasonx_eval.leaderboard.page_plots import Scale, ticks
from reasonx_eval.leaderboard.tables import make_tables
from reasonx_eval.protocols.protocol import get_protocol
from reasonx_eval.report.markdown import escape
from reasonx_eval.report.tables import printable
from tests.reasonx_eval.leaderboard.makers import crowd, draw, make, with_pictures
from tests.reasonx_eval.leaderboard.makers import write as write_files

WILD = get_protocol("depth/scenes-wild")

HOSTILE = (
    "<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "=HYPERLINK(\"http://x\")", "+1+1", "-2", "@SUM(A1)",
    "a|b`c`*d*_e_", "[link](javascript:alert(1))", "javascript:alert(1)", "</style></table></svg>", "{{ 7*7 }}",
    "new\nline\ttab", "\x1b[31mred", "&lt;b&gt;", "\u202egnp", "' onmouseover='x", "https://evil.example/", "## head",
)  # fmt: skip


def hostile() -> list[object]:
    values = draw(WILD, 12, 0.3, "h")
    return [make(name, values, licence=name, trained_on=[name], reward=name, source=f"s{k}",
                 base=HOSTILE[k - 1] if k % 2 else None) for k, name in enumerate(HOSTILE)]  # fmt: skip


class Reader(html.parser.HTMLParser):
    """Tags with their attributes, and the text of row heads."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.heads: list[str] = []
        self._in_head = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "th":
            self._in_head = dict(attrs).get("scope") == "row"
            if self._in_head:
                self.heads.append("")
        elif tag in ("td", "abbr", "i"):
            self._in_head = False

    def handle_data(self, data: str) -> None:
        if self._in_head:
            self.heads[-1] += data


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("board")
    write_files(folder / "results", hostile())  # type: ignore[arg-type]
    return folder


def test_hostile_names_are_text_in_the_page(board: Path) -> None:
    page = generate(board / "results", board).files[board / "index.html"].decode()
    reader = Reader()
    reader.feed(page)
    assert len([t for t, _ in reader.tags if t == "script"]) == 1
    known = {"html", "meta", "title", "style", "body", "header", "h1", "h2", "h3", "p", "b", "ul", "li", "nav",
             "span", "a", "div", "label", "input", "details", "summary", "button", "main", "section", "small", "table",
             "caption", "code", "thead", "tbody", "tr", "th", "td", "i", "abbr", "figure", "figcaption", "svg",
             "path", "circle", "text", "g", "img", "footer", "script"}  # fmt: skip
    assert {t for t, _ in reader.tags} <= known
    assert not [a for _, attrs in reader.tags for a in attrs if a.startswith("on")]
    links = [attrs["href"] for t, attrs in reader.tags if t == "a"]
    safe = re.compile(r"(#[a-z0-9-]+|\./results/[\w./%@+-]+\.json|[A-Za-z.]+\.(md|csv|json))")
    assert [x for x in links if not safe.fullmatch(str(x))] == []
    shown = [h.strip() for h in reader.heads]
    for name in ("<script>alert(1)</script>", "{{ 7*7 }}", "&lt;b&gt;", "</style></table></svg>"):
        assert name in shown
    assert "\x1b" not in page
    fetched = [v for t, attrs in reader.tags for k, v in attrs.items() if k in ("src", "srcset", "data", "xlink:href")]
    assert fetched == []
    assert not re.search(r"url\(|@import", page)
    assert "default-src 'none'" in page


def test_every_region_and_id_of_the_page_has_a_name_of_its_own(tmp_path: Path) -> None:
    rows = [make("a", draw(get_protocol(p), 12, 0.3, "r"), p, kind=kind) for p, kind in (
        ("albedo/scenes-wild", "albedo_linear"), ("albedo/scenes-wild-whdr", "albedo_linear"),
        ("albedo/scenes-wild-whdr", "albedo_srgb"), ("depth/nyuv2", "disparity_affine"))]  # fmt: skip
    page = render_page(Board(tuple(make_tables(rows)), tuple(published_tables()), ()), "./results")
    reader = Reader()
    reader.feed(page)
    for found in ([a["aria-label"] for _, a in reader.tags if a.get("role") == "region"],
                  [a["id"] for _, a in reader.tags if "id" in a]):  # fmt: skip
        assert len(found) > 4
        assert len(set(found)) == len(found)
    targets = {a["id"] for _, a in reader.tags if "id" in a}
    assert {str(a["href"])[1:] for t, a in reader.tags if t == "a" and str(a["href"]).startswith("#")} <= targets


def test_hostile_names_are_text_in_markdown(board: Path) -> None:
    text = generate(board / "results", board).files[board / "README.md"].decode()
    tokens = MarkdownIt("commonmark", {"html": True, "linkify": False}).enable("table").parse(text)
    inline = [c for t in tokens for c in (t.children or [])]
    assert {c.content for c in inline if c.type == "html_inline"} <= {"<br>"}
    assert not [t for t in tokens if t.type == "html_block"]
    links = [c.attrs["href"] for c in inline if c.type == "link_open"]
    assert set(links) == {"index.html", "leaderboard.csv", "leaderboard.json"}
    cells = ["".join(c.content for c in t.children or []) for t in tokens if t.type == "inline"]
    for name in ("<script>alert(1)</script>", "a|b`c`*d*_e_", "[link](javascript:alert(1))", "=HYPERLINK(\"http://x\")"):
        assert any(name in cell for cell in cells), name
    heads = [t for t in tokens if t.type == "heading_open"]
    assert {t.tag for t in heads} == {"h1", "h2", "h3"}
    assert len([t for t in heads if t.tag == "h1"]) == 1


def test_no_cell_of_the_csv_is_a_formula(board: Path) -> None:
    text = generate(board / "results", board).files[board / "leaderboard.csv"].decode()
    rows = list(csv.DictReader(io.StringIO(text)))
    numbers = {"value", "ci_low", "ci_high", "difference", "difference_low", "difference_high"}
    for row in rows:
        for key, cell in row.items():
            assert key in numbers or not re.match(r"[=+\-@\t\r\n]", cell), (key, cell)
            if key in numbers and cell:
                float(cell)
    assert "'=HYPERLINK(\"http://x\")" in {r["model"] for r in rows}


def test_escape_shows_any_text_in_a_table_cell() -> None:
    parser = MarkdownIt("commonmark").enable("table")
    for name in (*HOSTILE, "plain", "1. x", "a\\|b", "<!-- x -->", "~~s~~", "![x](y)", "&amp;"):
        tokens = parser.parse(f"| a | b |\n|---|---|\n| {escape(name)} | z |\n")
        cells = [t for t in tokens if t.type == "inline"]
        assert len(cells) == 4, name
        shown = "".join(c.content for c in cells[2].children or [])
        assert {c.type for c in cells[2].children or []} <= {"text", "text_special"}, name
        assert shown.split() == printable(name).split(), name


def test_json_is_the_document_and_its_values_are_those_of_the_results(tmp_path: Path) -> None:
    rows = [make("base", draw(WILD, 30, 0.3, "b")), make("tuned", draw(WILD, 30, 0.2, "t"), base="base")]
    write_files(tmp_path / "results", rows)
    made = generate(tmp_path / "results", tmp_path)
    data = json.loads(made.files[tmp_path / "leaderboard.json"])
    document = BoardOut.model_validate(data)
    assert document == board_document(made.board)
    cell = document.tables[0].rows[1].values["abs_rel"]
    assert cell.value == rows[1].result.aggregate["abs_rel"].value
    assert cell.difference is not None
    lines = list(csv.DictReader(io.StringIO(board_csv(made.board, document))))
    measured = [x for x in lines if x["section"] == "measured" and x["model"] == "tuned" and x["metric"] == "abs_rel"]
    assert [float(x["value"]) for x in measured] == [cell.value]
    assert [float(x["difference"]) for x in measured] == [cell.difference.value]


def test_published_rows_are_apart_and_unranked(tmp_path: Path) -> None:
    rows = [make("net", draw(get_protocol("depth/nyuv2"), 12, 0.2, "x"), "depth/nyuv2")]
    write_files(tmp_path / "results", rows)
    made = generate(tmp_path / "results", tmp_path)
    assert {r.model.name for t in made.board.tables for r in t.rows} == {"net"}
    published = next(t for t in made.board.published if t.protocol == "depth/nyuv2@1")
    assert len(published.rows) > 3
    page = made.files[tmp_path / "index.html"].decode()
    section = page[page.index("<section"):page.index("</section>")]
    assert section.index(">net<") < section.index("Published elsewhere") < section.index(published.rows[0].model)
    csv_rows = list(csv.DictReader(io.StringIO(made.files[tmp_path / "leaderboard.csv"].decode())))
    assert all(r["rank_best"] == "" for r in csv_rows if r["section"] == "published")
    assert all(r["source"] and r["source_table"] for r in csv_rows if r["section"] == "published")


def test_the_same_results_give_the_same_bytes_and_a_changed_one_is_noticed(tmp_path: Path) -> None:
    results = write_files(tmp_path / "results", crowd(4, 2, n=20))
    first = generate(results, tmp_path)
    write(first)
    check(generate(results, tmp_path))
    assert first.files == generate(results, tmp_path).files
    (tmp_path / "leaderboard.csv").unlink()
    (tmp_path / "index.html").write_text(first.files[tmp_path / "index.html"].decode().replace("0.1", "0.2", 1))
    with pytest.raises(NotComparable, match=r"index.html is stale; leaderboard.csv is missing"):
        check(first)


def test_check_exits_4_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = write_files(tmp_path / "results", crowd(2, 1, n=20))
    assert run_cli(cli, ["leaderboard", str(results), "--check"]) == 4
    assert "missing" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["results"]
    assert run_cli(cli, ["leaderboard", str(results)]) == 0
    assert "depth/nyuv2@1" in capsys.readouterr().out
    assert run_cli(cli, ["leaderboard", "build", str(results), "--check", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["what"] == "leaderboard"
    write_files(results, [make("new", draw(get_protocol("depth/nyuv2"), 20, 0.1, "n"), "depth/nyuv2")])
    assert run_cli(cli, ["leaderboard", str(results), "--check"]) == 4
    assert "index.html is stale" in capsys.readouterr().err


def test_a_readme_of_somebody_else_is_not_replaced(tmp_path: Path) -> None:
    results = write_files(tmp_path / "results", crowd(1, 1, n=20))
    (tmp_path / "README.md").write_text("# My project\n")
    made = generate(results, tmp_path)
    with pytest.raises(UsageError, match=r"README\.md"):
        write(made)
    assert not (tmp_path / "index.html").exists()
    write(made, force=True)
    write(generate(results, tmp_path))


def test_out_may_name_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = write_files(tmp_path / "results", crowd(1, 1, n=20))
    assert run_cli(cli, ["leaderboard", str(results), "--out", str(tmp_path / "site/index.html")]) == 0
    assert "../results/depth/nyuv2%401/model-000.json" in (tmp_path / "site/index.html").read_text()
    assert run_cli(cli, ["leaderboard", str(results), "--out", str(tmp_path / "site/page.html")]) == 2
    assert run_cli(cli, ["leaderboard", str(tmp_path / "none")]) == 2
    capsys.readouterr()
    assert run_cli(cli, ["leaderboard", "--schema"]) == 0
    assert "BoardOut" in json.loads(capsys.readouterr().out)["title"]


@pytest.mark.slow
def test_two_hundred_models_under_twelve_protocols_fit_in_three_megabytes() -> None:
    (table,) = make_tables(with_pictures(r, 4) for r in crowd(200, 1, n=20))
    assert (len(table.rows), len(table.metrics)) == (200, 8), "no protocol reports more than eight metrics by default"
    page = render_page(Board((table,), (), ()), "./results")
    assert 12 * len(page.encode()) < 3_000_000


def test_numbers_as_text() -> None:
    assert (signed(-0.00213, 4), signed(0.5, 2), signed(-1e-9, 4)) == ("\N{MINUS SIGN}0.0021", "+0.50", "0.0000")
    assert [seconds_text(s) for s in (None, 2e-5, 0.01234, 3.456, 250.4)] == ["-", "<0.001", "0.012", "3.5", "250"]
    assert shown_value(Value(value=1e-17, ci_low=0, ci_high=3e-17, n=5)) == ("0.0000", "[0.0000, 0.0000]")
    assert shown_value(Value(value=None, n=0, reason="why")) == ("-", "why")


def test_ticks_are_round_and_inside() -> None:
    assert ticks(0.0, 1.0) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert ticks(13, 58) == pytest.approx([20, 30, 40, 50])
    assert ticks(2.0, 2.0) == [2.0]
    scale = Scale(0.0, 10.0, 100.0, 200.0)
    assert (scale(0), scale(5), scale(99)) == (100.0, 150.0, 200.0)
