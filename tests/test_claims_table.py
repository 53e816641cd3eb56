"""The table of claims as a reader uses it: sorted by any column, by mouse or keyboard, from the disk."""

from pathlib import Path

import pytest

STATIC = Path(__file__).resolve().parent.parent / "book" / "_static"
HEADINGS = ("Claim", "Paper", "Ours", "Scale", "Verdict")
PARTS = {  # name, paper's value, ours, scale, verdict
    "First part": [("beta", "0.076", "0.0953", "laptop", "≠ differs"), ("alpha", "1.5 × 10⁻⁵", "1,234", "hours", "✓ agrees")],
    "Second part": [("gamma", "–", "−0.5", "smoke", "○ not reachable"), ("delta", "−0.2", "2 × 10⁸", "gpu", "✓ agrees")],
}


def table(rows) -> str:
    row = lambda c: (f"<tr><td><p>{c[0]}</p></td><td><p><span class='value'>{c[1]}</span> Paper [2020]</p></td>"
                     f"<td><p><span class='value'>{c[2]}</span> <span class='interval'>[1, 2]</span></p></td><td><p>{c[3]}</p></td>"
                     f"<td><p><span class='verdict'>{c[4]}</span></p></td></tr>")
    head = "".join(f"<th class='head'><p>{name}</p></th>" for name in HEADINGS)
    return f"<div class='pst-scrollable-table-container'><table class='claims table'><thead><tr>{head}</tr></thead><tbody>{''.join(map(row, rows))}</tbody></table></div>"


@pytest.fixture
def page(browser, tmp_path):
    body = "".join(f"<h3 class='claims-part'>{part}</h3>{table(rows)}" for part, rows in PARTS.items())
    live = f"<section><h2>Live</h2>{table([('zeta', '1', '2', 'laptop', '✓ agrees')])}</section>"
    path = tmp_path / "page.html"
    path.write_text(f"<!doctype html><html lang='en'><head><meta charset='utf-8'><title>Claims</title><link rel='stylesheet' href='{(STATIC / 'custom.css').as_uri()}'>"
                    f"<script src='{(STATIC / 'claims.js').as_uri()}' defer></script></head><body><main><section><h2>Claims</h2>{body}</section>{live}</main></body></html>")
    context = browser.new_context(viewport={"width": 900, "height": 900})
    page, said = context.new_page(), []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(path.as_uri())
    yield page
    assert said == []
    context.close()


def names(page) -> list[str]:
    """Of the claims that can be seen, above the live ones."""
    return [row.inner_text() for row in page.locator("section:first-of-type tbody tr td:first-child").all() if row.is_visible()]


def press(page, heading, times=1):
    for _ in range(times):
        page.locator("section:first-of-type table:visible").first.get_by_role("button", name=heading).press("Enter")


@pytest.mark.parametrize("heading, order", [
    ("Claim", "alpha beta delta gamma"), ("Paper", "delta alpha beta gamma"), ("Ours", "gamma beta alpha delta"),
    ("Scale", "gamma beta alpha delta"), ("Verdict", "alpha delta beta gamma"),
])  # fmt: skip
def test_each_heading_sorts_all_parts_together_by_keyboard(page, heading, order):
    assert names(page) == ["beta", "alpha", "gamma", "delta"]
    press(page, heading)
    assert names(page) == order.split()
    sorted_by = page.locator("th[aria-sort=ascending]:visible").all_inner_texts()
    assert [text.split()[0] for text in sorted_by] == [heading] and page.locator("h3:visible").count() == 0
    assert page.get_by_role("status").first.inner_text() == f"All parts, by {heading}, ascending"


def test_down_then_back_to_the_order_of_the_book(page):
    press(page, "Paper", 2)
    assert names(page) == ["beta", "alpha", "delta", "gamma"] and page.locator("th[aria-sort=descending]:visible").count() == 1  # what has no number stays last
    press(page, "Paper")
    assert names(page) == ["beta", "alpha", "gamma", "delta"] and page.locator("h3:visible").count() == 2
    assert page.locator("th:not([aria-sort=none])").count() == 0


def test_a_heading_of_a_later_part_keeps_the_focus_and_the_live_claims_stay_apart(page):
    page.locator("table").nth(1).get_by_role("button", name="Ours").press("Enter")
    assert page.evaluate("document.activeElement.closest('table') === document.querySelector('table')")
    assert page.locator("section").nth(1).locator("tbody tr").count() == 1


def test_a_phone_can_sort_too(page):
    page.set_viewport_size({"width": 390, "height": 844})
    press(page, "Claim")
    assert names(page) == ["alpha", "beta", "delta", "gamma"]
    boxes = [button.bounding_box() for button in page.locator("table").first.get_by_role("button").all()]
    assert len(boxes) == 5 and all(box["width"] > 20 and box["x"] + box["width"] <= 390 for box in boxes)
