"""The documentation: it builds strictly, has a page for every plug-in and key, and loads nothing from elsewhere."""

import html
import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import jsonschema
import pytest
import yaml

from augbench.core import registry
from augbench.core.protocol import PROTOCOL_NUMBERS
from augbench.planning.grid import Grid, make_grid

REPOSITORY = Path(__file__).resolve().parents[2]
LOADING = {  # tag -> attribute with an address that browsers fetch by themselves
    **dict.fromkeys(("script", "img", "iframe", "source", "video", "audio", "embed"), "src"),
    **dict.fromkeys(("image", "use"), "href"),
    "object": "data",
}
LOADING_LINKS = {"stylesheet", "icon", "preconnect", "dns-prefetch", "preload", "modulepreload", "prefetch", "manifest"}
MOST_WORDS = 700


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    out = tmp_path_factory.mktemp("site")
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    environment.pop("AUGBENCH_DATA", None)
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(out)]
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


class Page(HTMLParser):
    """Collects what a page loads, where its links lead, and its anchors."""

    def __init__(self, text):
        super().__init__()
        self.loads, self.links, self.ids, self._is_style, self.styles = [], [], set(), False, []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        values = {key: value or "" for key, value in attrs}
        self.ids |= {values[key] for key in ("id", "name") if key in values}
        if tag in LOADING and values.get(LOADING[tag]):
            self.loads.append(values[LOADING[tag]])
        self.loads += [part.split()[0] for part in values.get("srcset", "").split(",") if part.strip()]
        if tag == "link" and LOADING_LINKS & set(values.get("rel", "").split()):
            self.loads.append(values["href"])
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        self.styles.append(values.get("style", ""))
        self._is_style = tag == "style"

    def handle_data(self, data):
        if self._is_style:
            self.styles.append(data)

    def handle_endtag(self, tag):
        self._is_style = False


def elsewhere(address):
    return bool(urlsplit(address).netloc)


def in_css(text):
    return re.findall(r"""url\(\s*["']?([^"')]+)|@import\s+["']([^"']+)""", text)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('<img src="https://a.example/x.png">', ["https://a.example/x.png"]),
        ('<script src="//a.example/x.js"></script>', ["//a.example/x.js"]),
        ('<link rel="preconnect" href="https://fonts.example">', ["https://fonts.example"]),
        ('<img srcset="x.png 1x, https://a.example/y.png 2x">', ["https://a.example/y.png"]),
        ('<a href="https://a.example">a link</a><img src="x.png"><img src="data:image/png;base64,">', []),
    ],
)
def test_what_counts_as_loading(text, found):
    assert [address for address in Page(text).loads if elsewhere(address)] == found
    assert in_css("@import 'https://a.example/x.css'; a {background: url(https://a.example/y)}") != []


@pytest.fixture(scope="module")
def pages(site):
    return {path: Page(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))}


def test_no_page_loads_another_host(site, pages):
    assert len(pages) > 60
    for path, page in pages.items():
        loads = [*page.loads, *(one or two for style in page.styles for one, two in in_css(style))]
        assert [address for address in loads if elsewhere(address)] == [], path
    for path in site.rglob("*.css"):
        loads = [one or two for one, two in in_css(path.read_text(encoding="utf-8"))]
        assert [address for address in loads if elsewhere(address)] == [], path


def test_every_link_within_the_site_has_its_target(site, pages):
    for path, page in pages.items():
        if path.name == "404.html" or path.parent.name == "leaderboard":  # absolute links; records beside the page
            continue
        for link in [*page.links, *page.loads]:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc or link == ".":
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            assert target.exists(), f"{path.relative_to(site)}: {link}"
            if parts.fragment and target in pages:
                assert unquote(parts.fragment) in pages[target].ids, f"{path.name}: {link}"


def test_every_plugin_and_preset_has_its_page(site):
    for kind, folder in (("augmenters", "methods"), ("datasets", "datasets")):
        for name, plugin in registry.find(kind).items():
            if plugin.origin != "augbench":  # of another test
                continue
            text = html.unescape((site / folder / f"{name}.html").read_text(encoding="utf-8"))
            assert all(f"<code>{key}</code>" in text for key in plugin.Config.model_fields), name
    for name in ("memseg", "cutpaste", "noise_patch", "diag"):
        assert len(list((site / "methods" / "img").glob(f"{name}-*.webp"))) == 9, name
    commands = (site / "reference" / "cli.html").read_text(encoding="utf-8")
    assert all(words in commands for words in ("augbench run [OPTIONS] GRID", "--executor", "results check"))
    keys = html.unescape((site / "reference" / "grid.html").read_text(encoding="utf-8"))
    assert all(f"<code>{name}: " in keys for name in (*Grid.model_fields, *PROTOCOL_NUMBERS))


def test_the_schema_for_editors_takes_every_grid_and_refuses_mistakes(site):
    schema = json.loads((site / "reference" / "grid.schema.json").read_text(encoding="utf-8"))
    check = jsonschema.Draft202012Validator(schema)
    check.check_schema(schema)
    for path in sorted((REPOSITORY / "tune_configs").glob("*.yaml")):
        check.validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    grid = {"datasets": "elpv", "augmenters": ["none"], "protocols": "probe"}
    assert check.is_valid({**grid, "resources": {"train": {"memory": "8GB"}}, "shots": {"ids": "shots.txt"}})
    for mistake in ({"shot": 5}, {"n_aug": -1}, {"fidelity": 3}, {"augmenters": [{"name": "memseg", "n_augs": 3}]}):
        assert not check.is_valid({**grid, **mistake}), mistake


@pytest.mark.parametrize("key", Grid.model_fields)
def test_the_example_of_each_key_is_a_grid(key):
    [example] = Grid.model_fields[key].examples
    made = make_grid(
        {"name": "one", "datasets": ["elpv"], "augmenters": ["none"], "protocols": ["probe"], key: example}
    )
    assert key in made.model_fields_set


def test_readme_has_one_figure_and_few_words():
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    assert len(text.split()) <= MOST_WORDS
    assert len(re.findall(r"!\[", text)) == 1
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", text):
        assert (REPOSITORY / target).exists(), target
