"""The page of `augbench studio` in a headless browser: a person's whole way, with a server that is killed on it."""

import os
import re
import shutil
import signal
import subprocess
import sys

import pytest
from helpers import cli

BROWSER = os.environ.get("AUGBENCH_BROWSER") or next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
if BROWSER is None:
    pytest.skip("no chromium, chromium-browser or google-chrome on PATH: set AUGBENCH_BROWSER", allow_module_level=True)
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install -e '.[dev]'")
pytest.importorskip("uvicorn", reason="uvicorn is not installed: pip install -e '.[studio]'")
REFUSED = "ERR_CONNECTION_REFUSED"  # once the server was killed
RUNNING = []  # processes
PATIENCE = 120_000  # milliseconds: the pipeline is loaded first


class Server:
    """A process of `augbench studio`."""

    def __init__(self, folder, *options):
        command = [sys.executable, "-m", "augbench", "studio", "--port", "0", "--review", "review", *options]
        self.process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True)
        RUNNING.append(self.process)
        self.address = re.match(r"http://127\.0\.0\.1:\d+/", self.process.stdout.readline())[0]

    def end(self, how=signal.SIGINT):
        self.process.send_signal(how)
        status = self.process.wait(30)
        self.process.stdout.close()
        return status


@pytest.fixture
def opened():
    """Open pages; afterwards fail on console messages, errors, dialogs and requests to elsewhere."""
    trouble = []
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=BROWSER, args=["--no-sandbox", "--disable-gpu"])

        def show(server):
            page = browser.new_page(viewport={"width": 1280, "height": 800})
            page.on("console", lambda message: trouble.append(message.text) if REFUSED not in message.text else None)
            page.on("pageerror", lambda error: trouble.append(str(error)))
            page.on("dialog", lambda dialog: (trouble.append(dialog.message), dialog.dismiss()))
            page.on("request", lambda one: trouble.append(one.url) if not of_page(one.url, server) else None)
            page.goto(server.address)
            playwright.expect(page.locator("#film button").first).to_be_visible(timeout=PATIENCE)
            return page

        yield show
        browser.close()
    while RUNNING:
        RUNNING.pop().kill()
    assert not trouble


def of_page(url, server):
    return url.startswith((server.address, "blob:", "data:"))


def drawn(page):
    """Draw with the mouse across the middle of the image."""
    box = page.locator("canvas[data-pane=main]").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x - 40, y - 80)
    page.mouse.down()
    for step in range(9):
        page.mouse.move(x - 40 + 10 * step, y - 80 + 20 * step)
    page.mouse.up()


def decided(page, key, what):
    """Press a key once its button may be pressed."""
    button = {"a": "accept", "u": "undo"}.get(key, "reject")
    playwright.expect(page.locator(f"#{button}")).to_be_enabled()
    page.keyboard.press(key)
    playwright.expect(page.locator("#message")).to_contain_text(what)


@pytest.mark.slow
def test_a_person_s_way_from_a_surface_to_a_table(tmp_path, opened):
    server = Server(tmp_path, "--set", "steps=4")
    page = opened(server)
    page.click("[data-go=where]")
    drawn(page)
    playwright.expect(page.locator("#share")).to_have_text(re.compile(r"\d.* of the image"))
    page.click("#undo-stroke")
    playwright.expect(page.locator("#share")).to_have_text("Nothing is marked yet.")
    drawn(page)
    page.click("[data-go=what]")
    page.fill("#prompt", "metal surface with a scratch")
    page.keyboard.press("a")  # while typing it is a letter
    page.fill("#prompt", "metal surface with a scratch")
    page.click(".panel [data-go=generate]")
    playwright.expect(page.locator("#estimate")).to_contain_text("the time is not known")
    page.fill("#count", "3")
    page.click("#generate")
    playwright.expect(page.locator("canvas[data-pane=difference]")).to_be_visible(timeout=PATIENCE)
    playwright.expect(page.locator("#progress")).to_contain_text("3 made in", timeout=PATIENCE)
    playwright.expect(page.locator("#estimate")).to_contain_text("by the last images")

    page.click("[data-step=certify]")
    playwright.expect(page.locator("#verdict")).to_have_text("waits for a decision")
    decided(page, "a", "accepted")
    playwright.expect(page.locator("#item-facts")).to_contain_text("000001")
    decided(page, "2", "rejected: not plausible")
    playwright.expect(page.locator("#counts")).to_have_text("1 wait · 2 decided")
    assert server.end(signal.SIGKILL) == -signal.SIGKILL
    page.keyboard.press("a")
    playwright.expect(page.locator("#message")).to_contain_text("still running?")
    page.close()

    server = Server(tmp_path, "--set", "steps=4")
    page = opened(server)
    playwright.expect(page.locator("#counts")).to_have_text("1 wait · 2 decided")
    page.click("[data-step=what]")
    playwright.expect(page.locator("#own-prompts")).to_contain_text("50 % of 2")
    page.click("[data-step=certify]")
    playwright.expect(page.locator("#item-facts")).to_contain_text("000002")
    decided(page, "r", "rejected")
    decided(page, "u", "undone: 000002")
    decided(page, "a", "accepted")
    playwright.expect(page.locator("#empty")).to_have_text("Nothing waits for a decision.")
    page.click("[data-step=summary]")
    playwright.expect(page.locator("#numbers")).to_contain_text("2accepted")
    playwright.expect(page.locator("#sheet-image")).to_be_visible()
    command = page.locator("#summary pre").first.inner_text().split()
    page.close()
    assert server.end() == 0

    assert command[:2] == ["augbench", "run"]
    protocol = {"backbone": "micro_resnet", "weights": "timm", "width": 32, "height": 48}
    words = [word for key, value in protocol.items() for word in ("--set", f"protocols.probe.{key}={value}")]
    grid, store = tmp_path / command[2], tmp_path / "store"
    ran = cli("run", grid, "--store", store, "--executor", "inline", "--set", "fidelity=null", *words, cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    table = next((store / "reports").glob("*/report.md")).read_text().replace("\\", "")
    assert "certified by a person: 2 of 3 accepted" in table and "random_subset" in table


def test_catch_trials_look_like_the_others(tmp_path, opened):
    server = Server(tmp_path, "--set", "steps=2", "--catch", "0.5")
    page = opened(server)
    page.click("[data-go=where]")
    page.click("#procedural")
    playwright.expect(page.locator("#share")).to_have_text(re.compile(r"\d.* of the image"))
    page.click("[data-go=what]")
    page.fill("#prompt", "a crack")
    page.click(".panel [data-go=generate]")
    page.fill("#count", "2")
    page.click("#generate")
    playwright.expect(page.locator("#progress")).to_contain_text("2 made in", timeout=PATIENCE)
    playwright.expect(page.locator("canvas")).to_have_count(2)  # the source that was chosen and what was made
    page.click("[data-step=certify]")
    for number in range(4):
        playwright.expect(page.locator("#item-facts")).to_contain_text(f"00000{number}")
        playwright.expect(page.locator("#item-facts")).to_contain_text("Prompt and source are hidden")
        assert page.locator("canvas").count() == 1
        decided(page, "a", "accepted")
    page.click("[data-step=summary]")
    playwright.expect(page.locator("#summary")).to_contain_text("Real defects accepted: 100 % (1 of 1")
    playwright.expect(page.locator("#summary")).to_contain_text("Normal images accepted: 100 % (1 of 1")
    page.close()
    assert server.end() == 0
