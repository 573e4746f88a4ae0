"""Tests in a browser that the report can be read on a telephone, on a desk, and alone."""

import html
import json
import re
import shutil
import subprocess

import pytest
from test_report import text_records
from tiny_runs import comparison, config

from experiments.results import lengths

BROWSERS = "chromium", "chromium-browser", "google-chrome"
BROWSER = next(filter(shutil.which, BROWSERS), None)
OPTIONS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
OPTIONS += ["--enable-logging=stderr", "--hide-scrollbars", "--virtual-time-budget=5000"]
OPTIONS += ["--window-size=1600,900"]
WIDTHS = 390, 1400
# No window of Chromium is narrower than 500 pixels, but a frame in a window is.
FRAME = "<iframe src=page.html style='width:{0}px; height:800px; border:0'></iframe>"
FRAMES = f"""<!doctype html><meta charset=utf-8><pre id=found></pre>
<script>addEventListener("message", event => found.append(event.data + "\\n"))</script>
{"".join(map(FRAME.format, WIDTHS))}"""
# Tells the page around the frame how wide the page is, and how much of the first table is seen.
SCRIPT = """<script>addEventListener("load", () => {
  const table = document.querySelector("table"), root = document.documentElement;
  const requests = performance.getEntriesByType("resource").map(entry => entry.name);
  parent.postMessage(JSON.stringify({
    width: innerWidth, needs: root.scrollWidth, table: table.getBoundingClientRect().right,
    requests: requests.filter(name => !name.startsWith("data:")),
  }), "*");
})</script>"""


@pytest.mark.slow
@pytest.mark.skipif(
    BROWSER is None, reason=f"needs a browser: none of {', '.join(BROWSERS)} is on the PATH"
)
def test_the_report_is_no_wider_than_the_screen_and_asks_for_no_file(
    workdir, corpus, tmp_path, monkeypatch
):
    """Seven columns, as `make compare` has them, are seen at once on a telephone."""
    one, _ = comparison(config(corpus, eval__splits=("test",)), workdir)
    monkeypatch.setattr(one, "frame", lambda: lengths.tidy("text", text_records()))
    page = one.write_report("python launch.py " + "--x=1 " * 40)
    (tmp_path / "page.html").write_text(page.read_text() + SCRIPT)
    (tmp_path / "frames.html").write_text(FRAMES)
    command = [BROWSER, *OPTIONS, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"]
    command.append((tmp_path / "frames.html").as_uri())
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert [line for line in done.stderr.splitlines() if ":CONSOLE" in line] == []
    lines = re.search('<pre id="found">(.*?)</pre>', done.stdout, re.DOTALL)
    assert lines, done.stderr
    found = [json.loads(line) for line in html.unescape(lines[1]).splitlines()]
    found.sort(key=lambda screen: screen["width"])  # either frame may be the first to be ready
    assert [screen["width"] for screen in found] == [*WIDTHS]
    for screen in found:
        assert screen["needs"] <= screen["width"] and screen["requests"] == []
        assert screen["table"] <= screen["width"]
