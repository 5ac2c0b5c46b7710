"""The page in a browser: it draws, sorts and filters, and fits into a phone."""

import shutil

import pytest

from onnx_sipp import prune
from onnx_sipp.report.document import html_page

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"needs a browser: none of {', '.join(BROWSERS)} is installed")
    with sync_api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture(scope="module")
def address(models, tmp_path_factory):
    result = prune(
        models / "transformer.onnx", models / "digits-calib.npz", sparsity=0.7, num_samples=40
    )
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(html_page(result.report), encoding="utf-8")
    return path.as_uri()


@pytest.fixture
def opened(browser, address):
    """Opens the page; at the end nothing was complained of or asked of the network."""
    told = []
    contexts = []

    def call(width=1280, scheme="light"):
        context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: told.append(message.text))
        page.on("pageerror", lambda error: told.append(str(error)))
        page.on("request", lambda request: told.append(request.url))
        page.goto(address)
        return page

    yield call
    for context in contexts:
        context.close()
    assert set(told) == {address}


def column(page, number):
    return page.locator(f"#layers tbody tr td:nth-child({number})").all_inner_texts()


def test_tables_sort(opened):
    page = opened()
    shares = [float(text[:-1]) for text in column(page, 6)]
    head = page.get_by_role("button", name="sparsity", exact=True)
    head.click()
    assert [float(text[:-1]) for text in column(page, 6)] == sorted(shares)
    assert page.locator("th[aria-sort]").get_attribute("aria-sort") == "ascending"
    head.click()
    assert [float(text[:-1]) for text in column(page, 6)] == sorted(shares, reverse=True)
    page.get_by_role("button", name="layer", exact=True).click()
    assert column(page, 2) == sorted(column(page, 2))
    page.get_by_role("button", name="#", exact=True).click()
    assert column(page, 1) == [str(number + 1) for number in range(len(shares))]


def test_the_filter(opened):
    page = opened()
    count = len(column(page, 1))
    page.get_by_role("searchbox").fill("ATTENTION query")
    shown = page.locator("#layers tbody tr:visible td:nth-child(2)").all_inner_texts()
    assert shown == ["layer1.attention.query.matmul", "layer2.attention.query.matmul"]
    assert page.locator("#layers-count").inner_text() == f"2 of {count}"
    page.get_by_role("searchbox").fill("")
    assert page.locator("#layers tbody tr:visible").count() == count


@pytest.mark.parametrize("width", [320, 375, 768, 1280])
def test_nothing_is_wider_than_the_window(opened, width):
    page = opened(width)
    assert page.evaluate("document.documentElement.scrollWidth") == width


def test_plots_are_drawn(opened):
    page = opened()
    for image in page.locator("svg[aria-label]:not([aria-label=''])").all():
        box = image.bounding_box()
        assert box["width"] > 100
        assert box["height"] > 50
    colours = {
        bar.evaluate("bar => getComputedStyle(bar).fill")
        for bar in page.locator(".wide .bar").all()
    }
    assert len(colours) > 1


def test_light_and_dark(opened):
    """Text can be read on its ground in both."""
    for scheme in ("light", "dark"):
        page = opened(scheme=scheme)
        style = page.evaluate_handle("getComputedStyle(document.body)")
        ground, ink = style.evaluate("style => [style.backgroundColor, style.color]")
        light, dark = sorted([_luminance(ground), _luminance(ink)], reverse=True)
        assert (light + 0.05) / (dark + 0.05) > 7
        assert (_luminance(ground) > 0.5) == (scheme == "light")


def test_on_paper_everything_is_open(opened):
    page = opened()
    page.locator("details").first.evaluate("part => { part.open = false; }")
    assert page.pdf().startswith(b"%PDF")
    assert page.locator("details:not([open])").count() == 0
    page.emulate_media(media="print")
    page.set_viewport_size({"width": 718, "height": 1047})  # A4 within margins of a centimetre
    assert page.evaluate("document.documentElement.scrollWidth") == 718
    assert (
        page.locator(".tall").first.evaluate("box => getComputedStyle(box).overflow") == "visible"
    )


def _luminance(colour):
    channels = [int(part) / 255 for part in colour.strip("rgb()").split(",")]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
