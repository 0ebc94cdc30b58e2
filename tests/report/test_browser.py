"""The page in a real browser, where the machine has one: charts are drawn and nothing is asked of the network."""

import re
import shutil
import subprocess

import pytest

from a2mae.report import page

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")


def open_page(path, profile, *options: str) -> tuple[str, str]:
    """The page's elements after its scripts ran, and what the browser's console said."""
    command = [
        BROWSER,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--enable-logging=stderr",
        f"--user-data-dir={profile}",
        "--virtual-time-budget=10000",
        *options,
        "--dump-dom",
        f"{path.as_uri()}#/all",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout, "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_charts_are_drawn_in_the_colours_of_the_theme(inputs, tmp_path, scheme):
    path = tmp_path / "report.html"
    path.write_text(page.build(inputs), "utf-8")
    preferred = f"--blink-settings=preferredColorScheme={0 if scheme == 'dark' else 1}"
    elements, console = open_page(path, tmp_path / "profile", preferred)
    plots = re.findall(r'<div id="(chart-[a-z-]+)" class="plot js-plotly-plot"', elements)
    assert plots == [
        "chart-locations",
        "chart-shifts",
        "chart-clusters",
        "chart-curves",
        "chart-mistakes-segment",
        "chart-scores",
        "chart-knn",
    ]
    assert console == ""
    first_series = {"light": "rgb(11, 92, 173)", "dark": "rgb(125, 183, 245)"}[scheme]
    assert first_series in elements
    assert re.search(r'<button type="button" id="theme">(Dark|Light)<', elements)
