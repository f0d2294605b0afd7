"""What renderers make of any text: LaTeX that compiles (by its structure where no engine is here), pages, Markdown."""

import re
import shutil
import subprocess

import pytest
from helpers import ROOT
from test_layouts import reproduced, to_latex

from augbench.report.evidence.comparison_report import compare
from augbench.report.render.latex import to_latex as rendered
from augbench.report.render.markdown import to_markdown
from augbench.report.render.page import to_html
from augbench.report.sheet import Column, Section, Sheet, SheetRow
from augbench.report.store_report import report
from augbench.storage.store import Store

COMMAND = re.compile(r"\\(?:[a-zA-Z]+|.)")
GROUP = re.compile(r"\\multicolumn\{(\d+)\}")


def assert_structure(latex):
    """Assert what LaTeX needs: closed groups and environments, equal columns, no open special character."""
    for environment in ("table", "tabular"):
        assert latex.count(rf"\begin{{{environment}}}") == latex.count(rf"\end{{{environment}}}") > 0
    columns = 0
    for line in latex.splitlines():
        if line.startswith("%"):
            continue
        bare = COMMAND.sub("", line.replace(r"$N_\mathrm{aug}$", "").replace(r"$^\dagger$", ""))
        assert bare.count("{") == bare.count("}"), line
        assert not set(bare.replace("$+$", "").replace("$-$", "")) & set("%#_^$~<>|\\"), line
        if begun := re.match(r"\\begin\{tabular\}\{([lr]+)\}", line):
            columns = len(begun[1])
        if line.endswith(r"\\"):
            assert not line.startswith(("[", "*")), line
            wide = sum(int(number) - 1 for number in GROUP.findall(line))
            assert COMMAND.sub("", line).count("&") + 1 + wide == columns, line
        else:
            assert "&" not in COMMAND.sub("", line), line


NASTY = ["[ok] a", "*b", "[", "a & b_c", "50 % #1 $x$ {y} ^ ~ \\ < > |", "", "\N{EN DASH}5", "+3.1", "[2] † \n[x]"]


@pytest.fixture(scope="module")
def documents(tmp_path_factory):
    """One text of each layout: name -> LaTeX."""
    folder = tmp_path_factory.mktemp("latex")
    demo, steel = Store(ROOT / "results" / "demo"), Store(ROOT / "results" / "neu")
    report(demo, out=folder / "demo")
    report(steel, out=folder / "neu")  # recognition: confusion matrices
    compare(demo, out=folder / "demo", resamples=200)
    names = ["demo/report.tex", "neu/report.tex", "demo/compare.tex"]
    found = {name: (folder / name).read_text() for name in names}
    store = Store(folder / "papers")
    for layout in ("inout_table1", "inout_table5", "diag_table1"):
        found[layout] = to_latex(reproduced(store, layout))
    columns = [Column("a", "[class]", is_text=True), Column("b", "N_aug"), *(Column(c, c, "*both*") for c in "cd")]
    sheet = Sheet(columns, rows_of(NASTY), "[x]", ["*caption* & 5 %"], ["[note] #1"])
    found["nasty"] = rendered("[x] & %", [Section("[title]", "label_1", ["A sentence %."], [sheet], under="*u*")])
    return found


def rows_of(texts):
    return [
        SheetRow((text, text, "1", "-.5 (.1)"), marks, is_average=average, starts_block=True, repeats_name=average)
        for text in texts
        for marks, average in (({}, False), ({1: "best", 2: "second"}, True))
    ]


def test_text_cannot_break_a_page_or_markdown():
    """In every place that has a text."""
    text = "<b>a_b|c\\d*e%f&g#h{i}\n~^$[y](z) `q`</b>"
    columns = [Column("a", text, text, is_text=True), *(Column(c, text, text) for c in "bcd")]
    sheets = [Sheet(columns, rows_of([text]), text, [text], [text], is_folded=folded) for folded in (False, True)]
    sections = [Section(text, text, [text], sheets), Section(text, text, [text], sheets, under=text)]
    page, words = to_html(text, sections), to_markdown(text, sections)
    assert page.count("&lt;b&gt;a_b|c\\d*e%f&amp;g#h{i}\n~^$[y](z) `q`&lt;/b&gt;") and "<b>a" not in page
    assert "<script" not in page and "src=" not in page and "@import" not in page
    escaped = r"\<b\>a\_b\|c\\d\*e%f\&g\#h{i} \~^\$\[y\](z) \`q\`\</b\>"
    summary = "<summary>&lt;b&gt;a_b|c\\d*e%f&amp;g#h{i} ~^$[y](z) `q`&lt;/b&gt;</summary>"
    assert summary in words and "<b>" not in words.replace(escaped, "").replace(summary, "")
    assert not set(words.replace(escaped, "").replace(summary, "")) & set("{}%^$")


def test_every_layout_has_the_structure_of_latex(documents):
    for latex in documents.values():
        assert_structure(latex)


def test_rows_that_begin_with_an_argument_are_protected(documents):
    """After ``\\\\`` and after a rule LaTeX takes ``[ok]`` for a length and ``*`` for a star."""
    lines = documents["nasty"].splitlines()
    assert any(line.startswith("{}[ok] a & ") for line in lines) and any(line.startswith("{}*b & ") for line in lines)
    assert any(line.startswith("{}[class] & ") for line in lines)  # the headings, after \toprule or \cmidrule


def engine():
    if (pdflatex := shutil.which("pdflatex")) and shutil.which("kpsewhich"):
        found = subprocess.run(["kpsewhich", "booktabs.sty"], capture_output=True, check=False)
        return [pdflatex, "-interaction=nonstopmode", "-halt-on-error"] if found.returncode == 0 else None
    return [tectonic] if (tectonic := shutil.which("tectonic")) else None


@pytest.mark.skipif(engine() is None, reason="neither pdflatex with booktabs nor tectonic is here")
def test_every_layout_compiles(documents, tmp_path):
    body = "\n\\clearpage\n".join(documents.values())
    text = f"\\documentclass{{article}}\n\\usepackage{{booktabs}}\n\\begin{{document}}\n{body}\n\\end{{document}}\n"
    (tmp_path / "all.tex").write_text(text)
    made = subprocess.run([*engine(), "all.tex"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stdout[-2000:] + made.stderr[-2000:]
