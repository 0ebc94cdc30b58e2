"""One page at a time in a real browser: from the summary to each stage and back, by mouse, keys and address."""

import pytest

from a2mae.report import page as report
from a2mae.report.stage_pages import pages
from helpers.browser import BROWSER, browser

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")

SHOWN = "[...document.querySelectorAll('.page')].filter((e) => e.checkVisibility()).map((e) => e.id.slice(1))"
DRAWN = "[...document.querySelectorAll('.page:not([hidden]) .plot')].every((e) => e.querySelector('svg'))"
NARROW = """
[...document.querySelectorAll('.page:not([hidden]) .plot')].filter((e) => {
  const drawing = e.querySelector('svg.main-svg');
  return !drawing || drawing.getBoundingClientRect().width > e.clientWidth + 1;
}).map((e) => e.id)
"""


@pytest.fixture
def file(inputs, tmp_path):
    path = tmp_path / "report.html"
    path.write_text(report.build(inputs), "utf-8")
    return path.as_uri()


@pytest.fixture
def stages(inputs):
    return [page.name for page in pages(inputs)][1:]


def shows(page, name: str) -> bool:
    return page.wait(f"JSON.stringify({SHOWN}) === JSON.stringify([{name!r}])")


def test_from_the_summary_to_each_stage_and_back(file, stages):
    with browser() as page:
        page.size(1300)
        page.open(file)
        assert shows(page, "summary") and page.run("document.title") == "Summary · A small chain"
        for name in stages:
            page.click_until(f".cards a[href='#/{name}']", f"location.hash === '#/{name}'")
            assert shows(page, name)
            heading = page.run(f"document.getElementById('page-{name}').textContent")
            assert page.run("document.title") == f"{heading} · A small chain"
            assert page.run("document.activeElement.id") == f"page-{name}", "screen readers say the new heading"
            assert page.run("scrollY") == 0
            current = page.run("[...document.querySelectorAll('[aria-current=page]')].map((e) => e.hash)")
            assert current == [f"#/{name}"]
            page.wait(
                "[...document.querySelectorAll('.page:not([hidden]) .plot')].every((e) => e.querySelector('svg'))"
            )
            back = ".page:not([hidden]) .pager a[href='#/summary']"
            page.click_until(back, "location.hash === '#/summary'")
            assert shows(page, "summary")
        assert page.console == []


def test_one_after_the_other_and_back_in_the_history(file, stages):
    with browser() as page:
        page.open(file)
        for name in stages:
            page.click_until(".page:not([hidden]) .pager .after", f"location.hash === '#/{name}'")
            assert shows(page, name)
        assert page.run("document.querySelector('.page:not([hidden]) .pager .after')") is None
        page.run("history.back()")
        assert shows(page, stages[-2])
        page.run("document.querySelector('.page:not([hidden]) .pager .before').focus()")
        page.key("Enter", 13, "\r")
        assert shows(page, stages[-3])


def test_an_address_opens_its_stage_a_chapter_or_the_whole(file, stages):
    with browser() as page:
        page.size(1300, 500)
        page.open(f"{file}#/coregister")
        assert shows(page, "coregister") and page.run("scrollY") == 0
        page.wait("document.querySelector('#chart-shifts svg.main-svg')")
        assert page.run("document.querySelector('#chart-locations svg')") is None, "what is not shown is not drawn"
        page.run("location.hash = '#rejected-images'")
        page.wait("document.getElementById('rejected-images').getBoundingClientRect().top < innerHeight")
        assert shows(page, "coregister")
        page.run("location.hash = '#/no-such-stage'")
        assert shows(page, "summary")
        page.run("location.hash = '#content'")
        assert shows(page, "summary")
        page.click_until("#contents .whole a", "location.hash === '#/all'")
        assert page.wait(f"{SHOWN}.length === {len(stages) + 1}")
        page.wait("[...document.querySelectorAll('.plot')].every((e) => e.querySelector('svg.main-svg'))")
        assert not page.run("[...document.querySelectorAll('.pager')].some((e) => e.checkVisibility())")


def test_without_scripts_everything_is_there_and_links_lead_to_it(file, stages):
    with browser() as page:
        page.size(1300, 500)
        page.call("Emulation.setScriptExecutionDisabled", value=True)
        page.open(f"{file}#/prune")
        assert page.run(f"{SHOWN}") == ["summary", *stages]
        page.wait("Math.abs(document.getElementById('/prune').getBoundingClientRect().top) < 40")
        assert "Scripts are off" in page.run("document.body.innerText")
        page.click_until("#contents a[href='#/coregister']", "location.hash === '#/coregister'")
        page.wait("Math.abs(document.getElementById('/coregister').getBoundingClientRect().top) < 40")


def test_a_printer_gets_the_whole_report(file, stages):
    with browser() as page:
        page.open(f"{file}#/tag")
        assert shows(page, "tag")
        page.run("dispatchEvent(new Event('beforeprint'))")
        page.call("Emulation.setEmulatedMedia", media="print")
        assert page.run(SHOWN) == ["summary", *stages]
        page.wait("[...document.querySelectorAll('.plot')].every((e) => e.querySelector('svg.main-svg'))")
        page.call("Emulation.setEmulatedMedia", media="")
        page.run("dispatchEvent(new Event('afterprint'))")
        assert shows(page, "tag")


def test_every_page_fits_a_telephone(file, stages):
    with browser() as page:
        page.size(390, 844)
        page.open(file)
        for name in ["summary", *stages]:
            page.run(f"location.hash = '#/{name}'")
            assert shows(page, name)
            page.wait(f"({NARROW}).length === 0")
            assert page.run("document.documentElement.scrollWidth") <= 390, name
            link = page.run(
                "(() => { const r = document.querySelector('[aria-current]').getBoundingClientRect();"
                " return [r.left, r.right]; })()"
            )
            assert link[0] >= 0 and link[1] <= 390, f"the contents show where {name} is"
