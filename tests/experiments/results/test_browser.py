"""Tests the pages in a browser: on a phone, on a desk and on paper, and with typing."""

import functools
import html
import importlib
import json
import re
import shutil
import subprocess
from pathlib import Path

import common
import numpy as np
import pytest
import test_report
from rich.console import Console

from experiments.registry import make_experiment
from experiments.results.archive import restore
from experiments.results.reports import ledger_page, length_report
from experiments.results.reports.drawing import page_style
from experiments.studies import gallery
from experiments.studies.atlas import Atlas

DOCS = common.ROOT / "docs"
ATLAS = "atlas/index"
PAGES = (ATLAS, "atlas/schemes/rope", "claims/claims", "gallery", "report")
BROWSERS = "chromium", "chromium-browser", "google-chrome"
BROWSER = next(filter(shutil.which, BROWSERS), None)
OPTIONS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
OPTIONS += ["--enable-logging=stderr", "--hide-scrollbars", "--virtual-time-budget=5000"]
OPTIONS += ["--window-size=1600,900"]

# A4 has 717 pixels between its margins. Chromium shrinks a page until 1075 lie there, no further.
PHONE, DESK, PAPER = 390, 1400, 1075
# No window of Chromium is narrower than 500 pixels, but a frame in a window is.
FRAME = "<iframe src={0}.html style='width:{0}px; height:800px; border:0'></iframe>"
FRAMES = f"""<!doctype html><meta charset=utf-8><pre id=found></pre>
<script>addEventListener("message", event => found.append(event.data + "\\n"))</script>
{"".join(map(FRAME.format, (PHONE, DESK, PAPER)))}"""

# Acts as a reader does, and tells the page around the frame what is seen after every act.
SCRIPT = """<script>
const isSeen = element => element.getClientRects().length > 0;
function see() {
  const [head, ...rows] = document.querySelectorAll("#matrix tr");
  const texts = row => [...row.cells].filter(isSeen).map(cell => cell.firstChild.textContent);
  return {
    heads: texts(head), rows: rows.filter(isSeen).map(texts),
    status: document.querySelector("#shown").textContent,
  };
}
const does = {
  read() {},
  enter(id, value) {
    const control = document.getElementById(id);
    control.value = value;
    control.dispatchEvent(new Event("input", {bubbles: true}));
  },
};
addEventListener("load", () => {
  const found = {width: innerWidth, needs: document.documentElement.scrollWidth};
  found.seen = ACTS.map(([act, ...values]) => { does[act](...values); return see() });
  found.requests = performance.getEntriesByType("resource").map(entry => entry.name);
  parent.postMessage(JSON.stringify(found), "*");
});
</script>"""

READ = [("read",)]
FILTERS = [
    ("enter", "search", " YaRN "),
    ("enter", "family", "patterns"),
    ("enter", "search", ""),
    ("enter", "family", ""),
    ("enter", "group", "text"),
    ("enter", "group", ""),
]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        BROWSER is None, reason=f"needs a browser: none of {', '.join(BROWSERS)} is on the PATH"
    ),
]
on_screens = pytest.mark.parametrize("width", [PHONE, DESK])


def as_numbers(values: dict) -> dict:
    """Returns numbers that are not finite, which JSON has as words, as numbers."""
    return {key: float(x) if x in ("inf", "-inf", "nan") else x for key, x in values.items()}


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """Returns a workdir with the ledger and the atlas, made of the answers of the repository."""
    workdir = tmp_path_factory.mktemp("answers")
    restore(DOCS / "data/answers.tar.xz", workdir)
    ledger = json.loads((DOCS / "claims/claims.json").read_text(), object_hook=as_numbers)
    ledger_page.write(workdir / "claims", ledger["claims"], ledger["about"])
    with pytest.MonkeyPatch.context() as patch:
        # Drawing what each scheme does takes minutes.
        patch.setattr(Atlas, "cards", lambda self, schemes: {})
        config = importlib.import_module("configs.atlas").get_config("small")
        make_experiment(config, workdir, Console(quiet=True)).write_report("python launch.py")
    return workdir


def text_of(page: str, folder: Path, answers: Path) -> str:
    """Returns a page of the atlas or of the ledger, or one that is made of next to nothing."""
    if page == "gallery":
        with page_style():
            card = gallery.draw({8: np.zeros((1, 8)), 64: np.ones((4, 64))}, train_length=8)
        return gallery.page(dict.fromkeys(("rope", "alibi", "t5"), card), "4 heads.")
    path = answers / f"{page}.html"
    if page == "report":
        study = test_report.make_study(splits=("test", "manual"), strides=(64, 1))
        path = length_report.write(folder, study)
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def look(tmp_path_factory, answers):
    """Returns a function that opens a page at all widths, and says what is seen at each.

    The page may neither write to the console nor ask for another file.
    """

    @functools.cache
    def look(page):
        folder = tmp_path_factory.mktemp("pages")
        text = text_of(page, folder, answers)
        assert "@media print" in text
        # A frame has the style of a screen, so the style of paper becomes that of everything.
        texts = {PHONE: text, DESK: text, PAPER: text.replace("@media print", "@media all")}
        for width, shown in texts.items():
            acts = READ + FILTERS * (width != PAPER) if page == ATLAS else []
            script = SCRIPT.replace("ACTS", json.dumps(acts))
            (folder / f"{width}.html").write_text(shown + script, encoding="utf-8")
        frames = folder / "frames.html"
        frames.write_text(FRAMES, encoding="utf-8")
        profile = f"--user-data-dir={folder / 'profile'}"
        command = [BROWSER, *OPTIONS, profile, "--dump-dom", frames.as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert [line for line in done.stderr.splitlines() if ":CONSOLE" in line] == []
        lines = re.search('<pre id="found">(.*?)</pre>', done.stdout, re.DOTALL)
        assert lines, done.stderr
        pages = [json.loads(line) for line in html.unescape(lines[1]).splitlines()]
        assert [shown["requests"] for shown in pages] == [[], [], []]
        return {shown["width"]: shown for shown in pages}

    return look


@pytest.mark.parametrize("width", [PHONE, DESK, PAPER])
@pytest.mark.parametrize("page", PAGES)
def test_a_page_is_no_wider_than_the_screen_or_paper(page, width, look):
    assert look(page)[width]["needs"] <= width


@on_screens
def test_filters_leave_what_is_asked_for(width, look):
    states = look(ATLAS)[width]["seen"][: 1 + len(FILTERS)]
    every, yarns, both, patterns, cleared, group, end = states
    rows = every["rows"]
    assert yarns["rows"] == [row for row in rows if "yarn" in row[0]]
    assert both["rows"] == [row for row in yarns["rows"] if row[1] == "patterns"]
    assert patterns["rows"] == [row for row in rows if row[1] == "patterns"]
    assert 0 < len(both["rows"]) < len(yarns["rows"]) < len(rows)
    assert cleared == end == every
    for state in states:
        assert state["status"] == f"{len(state['rows'])} of {len(rows)} schemes"
    # The question "text, all 2x" is of another group.
    is_kept = [i < 2 or bool(re.match(r"text \d", head)) for i, head in enumerate(every["heads"])]
    assert 2 < sum(is_kept) < len(is_kept)
    for whole, part in zip([every["heads"], *rows], [group["heads"], *group["rows"]], strict=True):
        assert part == [cell for cell, is_left in zip(whole, is_kept, strict=True) if is_left]
