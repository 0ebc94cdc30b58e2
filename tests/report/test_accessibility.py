"""Everybody can read the page: names, order of headings, keyboard and contrast, as a real browser computes them."""

import itertools

import pytest

from a2mae.report import page as report
from helpers.browser import BROWSER, browser

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")

NAMED = {"link", "button", "image", "figure", "region", "group", "navigation", "DisclosureTriangle", "heading", "table"}
INTERACTIVE = "a[href], button, summary, [tabindex='0'], input, select, textarea"

CONTRAST = """
(() => {
  const parse = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
  const linear = (c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  const luminance = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  const over = (front, back) => front.slice(0, 3).map((v, i) => v * (front[3] ?? 1) + back[i] * (1 - (front[3] ?? 1)));
  const ground = (element) => {
    const layers = [];
    for (let e = element; e; e = e.parentElement) layers.push(parse(getComputedStyle(e).backgroundColor));
    return layers.reverse().reduce((below, layer) => over(layer, below), [255, 255, 255]);
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    const text = walker.currentNode.data.trim();
    const style = getComputedStyle(element);
    const hidden = style.visibility === "hidden" || style.opacity === "0" || !element.getClientRects().length;
    if (!text || hidden || element.closest("script, style, [aria-hidden=true] svg")) continue;
    const drawn = element instanceof SVGElement;
    const colour = parse(drawn ? style.fill : style.color);
    const back = ground(drawn ? element.ownerSVGElement.parentElement : element);
    const [a, b] = [luminance(over(colour, back)), luminance(back)].sort((x, y) => y - x);
    const size = parseFloat(style.fontSize), bold = Number(style.fontWeight) >= 700;
    const large = size >= 24 || (bold && size >= 18.66);
    found.push({ text: text.slice(0, 40), ratio: (a + 0.05) / (b + 0.05), large });
  }
  return found;
})()
"""
SAYS = """
(() => { const e = document.activeElement; if (!e || e === document.body) return null;
  const style = getComputedStyle(e);
  const index = [...document.querySelectorAll(%r)].indexOf(e);
  return { index, outline: style.outlineStyle, width: style.outlineWidth };
})()
"""


@pytest.fixture
def file(inputs, tmp_path):
    path = tmp_path / "report.html"
    path.write_text(report.build(inputs), "utf-8")
    return path.as_uri()


def opened(page, file, *, dark=None) -> None:
    page.size(1400, 900, dark=dark)
    page.open(f"{file}#/all")
    page.wait("document.querySelectorAll('.js-plotly-plot').length === document.querySelectorAll('.plot').length")


def test_everything_has_a_name_and_headings_are_in_order(file):
    with browser() as page:
        opened(page, file)
        nodes = page.call("Accessibility.getFullAXTree")["nodes"]
        seen = {}
        for node in nodes:
            role = node.get("role", {}).get("value")
            if role in NAMED and not node.get("ignored"):
                seen.setdefault(role, []).append(str(node.get("name", {}).get("value", "")).strip())
        assert {"link", "button", "image", "region", "heading", "navigation", "table"} <= set(seen)
        unnamed = {role: names.count("") for role, names in seen.items() if "" in names}
        assert not (unnamed.keys() - {"figure", "group", "DisclosureTriangle"}), unnamed
        assert page.run("[...document.images].every((image) => image.alt.trim().length > 3)")
        assert page.run("[...document.images].length") > 20
        levels = page.run("[...document.querySelectorAll('h1,h2,h3,h4,h5,h6')].map((e) => Number(e.tagName[1]))")
        assert levels[0] == 1 and levels.count(1) == 1
        assert all(after - before <= 1 for before, after in itertools.pairwise(levels)), levels
        assert page.run("document.documentElement.lang") == "en" and page.run("document.title")
        assert page.run(
            "[...document.querySelectorAll('table')].every((t) => t.caption && t.querySelector('th[scope]'))"
        )
        assert page.console == []


def test_the_keyboard_reaches_everything_and_shows_where_it_is(file):
    with browser() as page:
        opened(page, file)
        total = page.run(f"document.querySelectorAll({INTERACTIVE!r}).length")
        shown = "map((e, i) => e.checkVisibility() ? i : -1).filter((i) => i >= 0)"
        reachable = page.run(f"[...document.querySelectorAll({INTERACTIVE!r})].{shown}")
        page.run("document.querySelector('.skip').focus()")  # the address has put the start at the first page
        reached = [0]
        for _ in range(total + 20):
            page.key("Tab", 9)
            told = page.run(SAYS % INTERACTIVE)
            if told is None or told["index"] in reached[:1]:
                break
            assert told["outline"] not in ("none", "hidden") and told["width"] != "0px", told
            reached.append(told["index"])
        assert sorted(reached) == reachable and reached == sorted(reached), "in the order of the page"
        page.run("document.querySelector('details summary').focus()")
        page.key("Enter", 13, "\r")
        page.wait("document.querySelector('details').open")
        page.run("document.getElementById('theme').focus()")
        before = page.run("getComputedStyle(document.body).backgroundColor")
        page.key("Enter", 13, "\r")
        page.wait(f"getComputedStyle(document.body).backgroundColor !== '{before}'")
        page.run("document.activeElement.blur(); document.querySelector('.skip').focus()")
        page.key("Enter", 13, "\r")
        page.wait("location.hash === '#content'")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_every_text_stands_out_from_its_ground(file, dark):
    with browser() as page:
        opened(page, file, dark=dark)
        page.run("document.querySelectorAll('details').forEach((e) => { e.open = true; })")
        texts = page.run(CONTRAST)
        assert len(texts) > 300 and any("Pruning" in entry["text"] for entry in texts)
        faint = [entry for entry in texts if entry["ratio"] < (3 if entry["large"] else 4.5)]
        assert not faint, faint[:10]
