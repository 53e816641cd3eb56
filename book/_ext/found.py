"""What is said of each page to those who look for it, link to it or come to a wrong address.

- The date of the last change of each page, from git; a book built from a copy without git says none.
- Its address, what it is about, and a picture for whoever shows a link to it: our first figure under the book's title.
- `sitemap.xml`, and `404.html` for addresses that do not exist.

The address of the book follows from that of the repository, as GitHub Pages has it; `html_baseurl` wins.
"""

from __future__ import annotations

import html
import re
import subprocess
from datetime import date
from functools import lru_cache
from pathlib import Path
from xml.sax.saxutils import escape

import matplotlib
from docutils import nodes
from matplotlib import pyplot
from sphinx.application import Sphinx
from sphinx.util import logging

from minitransformer import claims
from minitransformer.figures import style
from minitransformer.figures.front import front_figure

logger = logging.getLogger(__name__)

CARD, CARD_SIZE = "_static/social-card.png", (1200, 630)
SPECIAL = {"404", "search", "genindex", "index"}
LONGEST = 200  # characters of a description
LOST = """<h1>There is no such page</h1>
<p>The address may be mistyped, or the page has moved. The search field finds any word of the book; the
<a href="{home}">front page</a> has the table of claims, and the list at the side every chapter.</p>"""
BASE = """<script>
if (location.protocol !== "file:") {{  // this page is shown for addresses of any depth
  const base = document.createElement("base");
  base.href = location.pathname.startsWith("{folder}") ? "{folder}" : "/";
  document.head.append(base);
  document.addEventListener("click", (event) => {{
    const link = event.target.closest('a[href^="#"]');
    if (link) {{ event.preventDefault(); document.querySelector(link.hash || "body").scrollIntoView(); }}
  }});
}}
</script>"""


# --- dates -------------------------------------------------------------------------------------------------------


def changes(root: Path) -> dict[str, date]:
    """The day of the last commit of every file, by its path from the root; nothing where git or the history is missing."""
    command = ["git", "-c", "core.quotepath=off", "log", "--format=%x00%cs", "--name-only", "--relative", "--", "."]
    try:
        done = subprocess.run(command, cwd=root, capture_output=True, encoding="utf-8", timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return {}
    found: dict[str, date] = {}
    for commit in done.stdout.split("\0")[1:] if done.returncode == 0 else ():
        day, *names = filter(None, commit.split("\n"))
        for name in names:
            found.setdefault(name, date.fromisoformat(day))
    return found


def in_words(day: date) -> str:
    return f"{day.day} {day:%B %Y}"


@lru_cache(maxsize=1)
def changed(srcdir: str) -> dict[str, date]:
    return changes(Path(srcdir))


def last_change(app: Sphinx, page: str) -> date | None:
    if page not in app.env.all_docs:
        return None
    source = Path(app.env.doc2path(page)).relative_to(app.srcdir).as_posix()
    return changed(str(app.srcdir)).get(source)


# --- addresses and descriptions ----------------------------------------------------------------------------------


def address(repository: str) -> str:
    """Where GitHub Pages shows the book of a repository: https://owner.github.io/name/."""
    found = re.fullmatch(r"https://github\.com/([^/]+)/([^/]+?)(?:\.git)?/?", repository)
    if not found:
        return ""
    host = f"{found[1].lower()}.github.io"
    return f"https://{host}/" if found[2].lower() == host else f"https://{host}/{found[2]}/"


def set_address(app: Sphinx, config) -> None:
    config.html_baseurl = config.html_baseurl or address(config.html_theme_options.get("repository_url", ""))


def description(doctree: nodes.document) -> str:
    """The first paragraph of a page, cut at the end of a word."""
    for paragraph in doctree.findall(nodes.paragraph):
        parts = (html.unescape(re.sub("<[^>]+>", "", one)) if isinstance(one.parent, nodes.raw) else one for one in paragraph.findall(nodes.Text))
        text = " ".join("".join(parts).split())
        if isinstance(paragraph.parent, nodes.section) and len(text) > 40 and not paragraph.next_node(nodes.math):
            return text if len(text) <= LONGEST else text[:LONGEST].rpartition(" ")[0].rstrip(",;:.") + " …"
    return ""


def about(app: Sphinx, page: str, context: dict, doctree: nodes.document | None) -> str:
    """The tags by which a link to a page is shown elsewhere."""
    title = re.sub(r"<[^>]+>", "", context.get("title", "")).strip()
    text, home = description(doctree) if doctree is not None else "", app.config.html_baseurl
    tags = [("name", "description", text), ("property", "og:type", "article"), ("property", "og:site_name", app.config.html_title),
            ("property", "og:title", html.unescape(title)), ("property", "og:description", text)]  # fmt: skip
    if home:
        tags += [("property", "og:url", f"{home}{page}.html"), ("property", "og:image", home + CARD),
                 ("property", "og:image:width", str(CARD_SIZE[0])), ("property", "og:image:height", str(CARD_SIZE[1])),
                 ("property", "og:image:alt", "The loss of small language models falls along a curve; the line of Kaplan et al. 2020 is dashed."),
                 ("name", "twitter:card", "summary_large_image")]  # fmt: skip
    return "\n".join(f'<meta {kind}="{name}" content="{html.escape(value)}" />' for kind, name, value in tags if value)


def tell(app: Sphinx, page: str, template: str, context: dict, doctree: nodes.document | None) -> None:
    day = last_change(app, page)
    context["last_updated"] = in_words(day) if day else None
    if page == "404":
        context["metatags"] = context.get("metatags", "") + BASE.format(folder=re.sub(r"^https://[^/]+", "", app.config.html_baseurl) or "/")
    if page not in SPECIAL:
        context["metatags"] = context.get("metatags", "") + "\n" + about(app, page, context, doctree)


# --- files -------------------------------------------------------------------------------------------------------


def lost(app: Sphinx):
    home = app.builder.get_relative_uri("404", app.config.root_doc)
    yield "404", {"title": "There is no such page", "body": LOST.format(home=home)}, "page.html"


def sitemap(app: Sphinx) -> str:
    """Every page of the contents with its address and the day of its last change."""
    lines = ['<?xml version="1.0" encoding="utf-8"?>', '<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">']
    for page in sorted(app.env.found_docs):
        day = last_change(app, page)
        when = f"<lastmod>{day.isoformat()}</lastmod>" if day else ""
        lines.append(f"<url><loc>{escape(app.config.html_baseurl + app.builder.get_target_uri(page))}</loc>{when}</url>")
    return "\n".join([*lines, "</urlset>", ""])


def draw_card(path: Path, title: str, claim_id: str) -> None:
    """The front page's figure under the title of the book, 1200 by 630 pixels."""
    runs = claims.runs_behind(*claims.definitions((claim_id,)))
    with style(), matplotlib.rc_context({"figure.dpi": 100, "savefig.dpi": 100}):
        drawing = front_figure(runs, (12, 6.3), 1.9)
        drawing.set_dpi(100)
        drawing.suptitle(title, fontsize=40, x=0.02, ha="left", color="#1f2933")
        drawing.savefig(path, dpi=100)
    pyplot.close(drawing)


def card(app: Sphinx) -> None:
    """Drawn once for each state of the package, beside the build."""
    from measured import fingerprint

    data = app.env.metadata.get(app.config.root_doc, {})
    if "front_claim" not in data:
        return
    kept = Path(app.doctreedir).parent / "measured" / f"card-{fingerprint(app.srcdir)[:12]}.png"
    if not kept.is_file():
        kept.parent.mkdir(parents=True, exist_ok=True)
        draw_card(kept, app.config.html_title, data["front_claim"])
    target = Path(app.outdir) / CARD
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(kept.read_bytes())


def finish(app: Sphinx, exception: Exception | None) -> None:
    changed.cache_clear()
    if exception or app.builder.name != "html":
        return
    if app.config.html_baseurl:
        (Path(app.outdir) / "sitemap.xml").write_text(sitemap(app), encoding="utf-8")
    else:
        logger.info("no sitemap: the repository's address tells of no pages")
    card(app)


def setup(app: Sphinx) -> dict:
    app.connect("config-inited", set_address, priority=900)
    app.connect("html-page-context", tell)
    app.connect("html-collect-pages", lost)
    app.connect("build-finished", finish)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
