"""The leaderboard in a headless browser: sorting, filters, sources, themes, printing; and that no record runs code."""

import os
import re
import shutil

import pytest
import yaml
from boards import BREAKING, HOSTILE, cell, grid_cells, protocol_of, write
from helpers import cli, tiny

from augbench.report.leaderboard.write_page import write_leaderboard
from augbench.storage.store import Store

BROWSER = os.environ.get("AUGBENCH_BROWSER") or next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
if BROWSER is None:
    pytest.skip("no chromium, chromium-browser or google-chrome on PATH: set AUGBENCH_BROWSER", allow_module_level=True)
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install -e '.[dev]'")


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=BROWSER, args=["--no-sandbox", "--disable-gpu"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def board(tmp_path_factory):
    """The leaderboard of three settings, each with three augmenters."""
    folder = tmp_path_factory.mktemp("board")
    store = Store(folder / "store")
    for one in [*grid_cells(), *grid_cells(shots=5), *grid_cells(dataset="steel", protocol=protocol_of("other"))]:
        write(store, one)
    write_leaderboard([store], folder / "out", say=lambda line: None)
    return folder / "out"


@pytest.fixture
def show(browser):
    """Open a page; afterwards fail on console messages, errors, dialogs and requests."""
    trouble, contexts = [], []

    def opened(folder, width=1280, scheme="light", **options):
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: trouble.append(message.text))
        page.on("pageerror", lambda error: trouble.append(str(error)))
        page.on("dialog", lambda dialog: (trouble.append(f"dialog {dialog.message}"), dialog.dismiss()))
        page.on("request", lambda request: trouble.append(request.url) if not _own(request.url, folder) else None)
        page.goto((folder / "index.html").as_uri())
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not trouble


def _own(url, folder):
    return url.startswith("data:image/") or url.partition("#")[0] == (folder / "index.html").as_uri()


def column(page, table, name):
    """Return the texts of a column in the visible rows."""
    return page.evaluate(
        """([table, name]) => {
          const found = document.querySelector(`#${table} table.board`);
          const place = [...found.tHead.rows[0].cells].findIndex((cell) => cell.innerText.trim().startsWith(name));
          const rows = [...found.tBodies[0].rows].filter((row) => !row.hidden);
          return rows.map((row) => row.cells[place].innerText.trim());
        }""",
        [table, name],
    )


def test_columns_sort_by_pointer_and_by_keyboard(board, show):
    page = show(board)
    before = column(page, "t1", "AP")
    head = page.locator("#t1 thead button", has_text="AP").first
    for press, direction in ((head.click, "descending"), (lambda: head.press("Enter"), "ascending")):
        press()
        values = [float(text.split()[0]) for text in column(page, "t1", "AP")]
        assert values == sorted(values, reverse=direction == "descending")
        assert page.locator(f"#t1 thead th[aria-sort={direction}]").count() == 1
    head.click()
    assert column(page, "t1", "AP") == before
    page.locator("#t1 thead button", has_text="gain").click()
    gains = column(page, "t1", "gain")
    assert gains[-1] == "–"  # noqa: RUF001 - the baseline has none, and comes last
    page.locator("#t1 thead button", has_text="augmenter").click()
    names = column(page, "t1", "augmenter")
    assert names == sorted(names) != column(page, "t2", "augmenter")


def test_filters_hide_other_rows(board, show):
    page = show(board)
    visible = page.locator("section.setting:visible")
    assert visible.count() == 3
    page.select_option("select[data-filter=dataset]", "steel")
    assert visible.count() == 1 and "steel" in visible.first.inner_text()
    page.select_option("select[data-filter=shots]", "5 shots")
    assert visible.count() == 0 and page.locator("#nothing").is_visible()
    page.locator("button[type=reset]").click()
    playwright.expect(visible).to_have_count(3)
    page.locator("input[value=memseg]").uncheck()
    assert set(column(page, "t1", "augmenter")) == {"none", "ddpm"}
    assert page.locator("table.overview tbody tr:visible").count() == 2
    assert page.locator("#shown").inner_text() == "12 of 21 rows"


def test_a_mean_opens_the_list_of_its_runs(board, show):
    page = show(board)
    number = page.locator("#t1 tbody tr", has_text="ddpm").first.locator("button[data-k=ap]")
    number.focus()
    page.keyboard.press("Enter")
    panel = page.locator("#sources")
    assert panel.is_visible() and panel.locator("li").count() == 3
    mean = sum(float(text) for text in panel.locator(".amount").all_inner_texts()) / 3
    assert mean == pytest.approx(float(number.inner_text().split()[0]), abs=6e-4)
    for link in panel.locator("a").all():
        assert (board / link.get_attribute("href")).is_file()
    page.keyboard.press("Escape")
    assert not panel.is_visible()
    assert page.evaluate("document.activeElement.dataset.k") == "ap"
    page.locator("#t1 tbody tr", has_text="ddpm").first.locator("button[data-k=gain]").click()
    assert panel.locator("li").count() == 6 and "none: seed 0" in panel.inner_text()
    page.mouse.click(5, 5)
    assert not panel.is_visible()


def test_plots_have_room_and_follow_the_theme(board, show):
    page = show(board)
    plots = page.locator(".plots figure > img")
    assert plots.count() == 12  # of three tables: AP, precision, recall, curves; costs are not recorded
    for plot in plots.all()[:5]:
        box = plot.bounding_box()
        assert box["width"] > 250 and box["height"] > 150 and plot.evaluate("image => image.naturalWidth")

    def parts(page):  # a plot, a table with markers
        return [page.locator(".plots img").first.screenshot(), page.locator("#t1 table.board").screenshot()]

    light = parts(page)
    page.locator("#theme").click()
    dark = parts(page)
    assert all(one != other for one, other in zip(light, dark, strict=True))
    assert parts(show(board, scheme="dark")) == dark
    page.locator("#theme").click()
    assert parts(page) == light


@pytest.mark.parametrize("width", [360, 768, 1280])
def test_the_page_never_scrolls_sideways(board, show, width):
    page = show(board, width=width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    if width == 360:
        assert page.evaluate("[...document.querySelectorAll('.box')].some((box) => box.scrollWidth > box.clientWidth)")
        page.locator("#t1 button[data-k=ap]").first.click()
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_text_has_enough_contrast(board, show):
    """The WCAG contrast ratio of text is at least 4.5."""
    script = """() => {
      const light = (text) => {
        const parts = text.match(/[\\d.]+/g).slice(0, 3).map((part) => part / 255);
        const [r, g, b] = parts.map((c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
      };
      const paper = (node) => {
        for (let one = node; one; one = one.parentElement) {
          const colour = getComputedStyle(one).backgroundColor;
          if (!colour.endsWith(", 0)")) return colour;
        }
      };
      const words = [...document.querySelectorAll("p, td, th, button, a, label, dt, dd, li, h1, h2, summary, span")];
      const seen = words.filter((node) => node.checkVisibility() && node.innerText.trim());
      return Math.min(...seen.map((node) => {
        const [a, b] = [light(getComputedStyle(node).color), light(paper(node))].sort((x, y) => y - x);
        return (a + 0.05) / (b + 0.05);
      }));
    }"""
    for scheme in ("light", "dark"):
        assert show(board, scheme=scheme).evaluate(script) >= 4.5


def test_without_scripts_the_numbers_are_there(board, show):
    page = show(board, java_script_enabled=False)
    assert page.locator("#filters").is_hidden() and page.locator("#t1 tbody tr").count() == 7


def test_it_can_be_printed(board, show):
    page = show(board)
    page.emulate_media(media="print")
    assert page.locator("#filters").is_hidden() and page.locator("#t1 table.board").is_visible()
    assert page.evaluate("getComputedStyle(document.querySelector('.box')).overflowX") == "visible"


def test_hostile_names_run_nothing(tmp_path, show):
    store = Store(tmp_path / "store")
    augmenter = {"name": "memseg", "alias": HOSTILE + BREAKING, "settings": {}, "key_settings": {}}
    for seed in range(3):
        write(store, cell("none", 0, seed, protocol=protocol_of(HOSTILE)))
        one = cell("memseg", 40, seed, protocol=protocol_of(HOSTILE))
        write(store, one, key=f"x' onclick=alert(3) {seed}", notes=[BREAKING], device=HOSTILE, augmenter=augmenter)
    write_leaderboard([store], tmp_path / "out", say=lambda line: None)
    page = show(tmp_path / "out")
    assert HOSTILE in page.locator("h2").nth(1).inner_text()
    page.locator("#t1 tbody tr").last.locator("button[data-k=ap]").click()
    assert HOSTILE in page.locator("#sources-title").inner_text()
    assert all(image.get_attribute("src").startswith("data:image/svg+xml;") for image in page.locator("img").all())
    assert page.locator("script").count() == 2
    for link in page.locator("#sources a").all():
        assert re.fullmatch(r"records/[A-Za-z0-9_.%~-]+\.json", link.get_attribute("href"))


def test_images_are_drawn(tmp_path, show):
    grid = tmp_path / "g.yaml"
    grid.write_text(yaml.safe_dump(tiny(augmenters=["none", "memseg"], shots=[5])))
    ran = cli("run", grid, "--store", tmp_path / "s", "--executor", "inline")
    assert ran.returncode == 0, ran.stderr
    write_leaderboard([Store(tmp_path / "s")], tmp_path / "out", say=lambda line: None)
    page = show(tmp_path / "out")
    thumbs = page.locator("#images .sheet .thumb")
    assert thumbs.count() == 24  # eight normal images, eight defect images, eight of memseg
    assert page.locator(".plots img[alt*='against cost']").count() == 1
    box = thumbs.first.bounding_box()
    assert box["width"] > 20 and box["height"] > 40
    shot = page.locator("#images .sheet").screenshot()
    page.evaluate("document.querySelectorAll('#images .sheet .thumb use').forEach((one) => one.remove())")
    assert page.locator("#images .sheet").screenshot() != shot
