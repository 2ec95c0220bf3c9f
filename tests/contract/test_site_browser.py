"""The site in a real Chromium: nothing runs, nothing leaves, everything can be read and reached."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from muster.report.site import archive, pages, write
from tests.contract.test_audit_reports_browser import ARGUMENTS, CONTRAST, FOCUSABLE
from tests.report_site_fixtures import healthy, rehearsal_document, spiteful, told

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")
TABS = (
    "index",
    "estate",
    "resources",
    "readiness",
    "drift",
    "replication",
    "drills",
    "unrecoverable",
    "evidence",
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    if BROWSER is None or DRIVER is None:
        missing = "chromium" if BROWSER is None else "chromedriver"
        pytest.skip(f"{missing} is not on the PATH (Debian: apt install chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for argument in (*ARGUMENTS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    try:
        driver.set_page_load_timeout(60)
        driver.set_script_timeout(60)
        yield driver
    finally:
        driver.quit()


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The sites of three estates, and one that somebody broke: what must be seen."""
    folder = tmp_path_factory.mktemp("sites")
    found: dict[str, Path] = {}
    for name, maker in (("healthy", healthy), ("told", told), ("spiteful", spiteful)):
        made = maker(folder / f"{name}-estate")
        if name == "told":
            made.evidence(rehearsal_document(12))
        found[name] = folder / name
        write(pages(made.site()), found[name])
    planted = (
        b"<script>window.pwned=1;console.error('x')</script><img src='http://127.0.0.1:9/x.png'>"
        b"<p class='under'>faint</p><style>p.under{color:#aaa !important}</style></main>"
    )
    broken = (found["told"] / "index.html").read_bytes()
    broken = broken.replace(b"Content-Security-Policy", b"x-none").replace(b"</main>", planted)
    write({"index.html": broken}, folder / "broken")
    found["broken"] = folder / "broken"
    return found


def look(
    browser: webdriver.Chrome, page: Path, *, scheme: str = "light", width: int = 1280
) -> None:
    """Open a page afresh, with a colour scheme and a width, and forget earlier logs."""
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia",
        {"media": "", "features": [{"name": "prefers-color-scheme", "value": scheme}]},
    )
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600},
    )
    browser.get("about:blank")
    log(browser, "browser")
    log(browser, "performance")
    browser.get(page.as_uri())


def log(browser: webdriver.Chrome, name: str) -> list[dict[str, Any]]:
    """Give what was logged since it was last given."""
    found: list[dict[str, Any]] = browser.get_log(name)  # type: ignore[no-untyped-call]
    return found


def troubles(browser: webdriver.Chrome, page: Path) -> list[str]:
    """Look at a page, and say what ran, left or was complained about."""
    look(browser, page)
    wrong = [str(entry["message"]) for entry in log(browser, "browser")]
    for entry in log(browser, "performance"):
        event = json.loads(entry["message"])["message"]
        if event["method"] == "Network.requestWillBeSent":
            url = event["params"]["request"]["url"]
            if url != page.as_uri() and not url.startswith("data:image/svg+xml;base64"):
                wrong.append(f"asked for {url[:200]}")
    if browser.execute_script("return window.pwned") is not None:
        wrong.append("a script ran")
    handlers = browser.execute_script(
        "return [...document.querySelectorAll('*')].filter(e => [...e.attributes]"
        ".some(a => a.name.startsWith('on') || /^\\s*javascript:/i.test(a.value) && "
        "['href','src','action','formaction','xlink:href'].includes(a.name))).length"
    )
    return wrong + ([f"{handlers} elements carry a handler"] if handlers else [])


def names(site: Path) -> list[Path]:
    """Every page of a site, but of the runs of drills only a few."""
    runs = sorted(site.glob("drill-*.html"))
    return [site / f"{name}.html" for name in TABS] + runs[:1] + runs[-1:]


@pytest.mark.parametrize("name", ["told", "spiteful"])
def test_no_script_runs_nothing_is_asked_for_and_the_console_is_silent(
    browser: webdriver.Chrome, sites: dict[str, Path], name: str
) -> None:
    for page in names(sites[name]):
        assert troubles(browser, page) == [], page.name
        assert browser.find_element(By.TAG_NAME, "h1").text


def test_a_page_that_runs_scripts_fetches_and_fades_is_seen(
    browser: webdriver.Chrome, sites: dict[str, Path]
) -> None:
    wrong = troubles(browser, sites["broken"] / "index.html")
    assert "a script ran" in wrong
    assert any(found.startswith("asked for http://127.0.0.1:9/") for found in wrong)
    assert browser.execute_script(CONTRAST)[1][0][0] < 4.5


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_has_enough_contrast(
    browser: webdriver.Chrome, sites: dict[str, Path], scheme: str
) -> None:
    seen = 0
    for page in (*names(sites["told"]), sites["healthy"] / "index.html"):
        look(browser, page, scheme=scheme)
        browser.execute_script("document.querySelectorAll('details').forEach(d => d.open = true)")
        count, worst = browser.execute_script(CONTRAST)
        seen += count
        assert worst[0][0] >= 4.5, (page.name, worst)
    assert seen > 1_000


@pytest.mark.parametrize("width", [360, 768])
def test_no_page_is_wider_than_its_window(
    browser: webdriver.Chrome, sites: dict[str, Path], width: int
) -> None:
    for name in ("told", "spiteful"):
        for page in names(sites[name]):
            look(browser, page, width=width)
            wide = browser.execute_script("return document.documentElement.scrollWidth")
            assert wide <= width, page.name


@pytest.mark.parametrize("name", ["index", "drift", "drills"])
def test_every_interactive_part_is_reached_by_tab_and_shows_that_it_is(
    browser: webdriver.Chrome, sites: dict[str, Path], name: str
) -> None:
    look(browser, sites["told"] / f"{name}.html")
    wanted = browser.execute_script(FOCUSABLE)
    numbers = {number for number, *_ in wanted}
    assert len(numbers) > 10
    reached: set[int] = set()
    for _ in range(len(wanted) + 20):
        browser.switch_to.active_element.send_keys(Keys.TAB)
        number, outlined = browser.execute_script(
            "const e = document.activeElement; const s = getComputedStyle(e);"
            "const c = e.querySelector('circle');"
            "const seen = s.outlineStyle !== 'none'"
            " || (c && getComputedStyle(c).strokeWidth === '2.5px');"
            "return [e.dataset.number ?? null, seen ? true : e.outerHTML.slice(0, 80)]"
        )
        if number is None:
            break
        reached.add(int(number))
        assert outlined is True
    assert numbers - reached == set()


def test_the_site_is_walked_by_keyboard_from_the_summary_to_a_finding(
    browser: webdriver.Chrome, sites: dict[str, Path]
) -> None:
    look(browser, sites["told"] / "index.html")
    link = browser.find_element(By.CSS_SELECTOR, ".hero-worst a")
    browser.execute_script("arguments[0].focus()", link)
    link.send_keys(Keys.ENTER)
    assert browser.current_url.startswith((sites["told"] / "drift.html").as_uri() + "#f-")
    shown = "return document.querySelector(location.hash).checkVisibility()"
    assert browser.execute_script(shown)
    # A finding that is folded unfolds when a link leads to it.
    folded = browser.find_elements(By.CSS_SELECTOR, "details.finding:not([open]) > .body")
    browser.get(browser.current_url.split("#")[0] + "#" + str(folded[0].get_attribute("id")))
    assert browser.execute_script(shown)
    source = browser.find_element(By.CSS_SELECTOR, ".as-of a")
    browser.execute_script("arguments[0].focus()", source)
    source.send_keys(Keys.ENTER)
    assert "evidence.html#s-audit" in browser.current_url
    assert browser.execute_script("return document.querySelector(':target').tagName") == "TR"


def test_headings_go_down_by_one_and_regions_have_names(
    browser: webdriver.Chrome, sites: dict[str, Path]
) -> None:
    for page in names(sites["told"]):
        look(browser, page)
        levels = browser.execute_script(
            "return [...document.querySelectorAll('h1,h2,h3,h4,h5')].map(h => +h.tagName[1])"
        )
        assert levels.count(1) == 1, page.name
        jumps = [(a, b) for a, b in pairwise(levels) if b > a + 1]
        assert jumps == [], page.name
        unnamed = browser.execute_script(
            "return [...document.querySelectorAll('[role=region],nav,table,svg[role=img]')]"
            ".filter(e => !(e.getAttribute('aria-label') || e.querySelector('caption'))).length"
        )
        assert unnamed == 0, page.name
        current = browser.find_elements(By.CSS_SELECTOR, ".tabs a[aria-current=page]")
        assert len(current) == 1, page.name


def test_on_a_phone_the_first_screen_gives_the_answer_and_the_worst(
    browser: webdriver.Chrome, sites: dict[str, Path]
) -> None:
    look(browser, sites["told"] / "index.html", width=390)
    for selector in (".hero h1", ".hero-worst"):
        bottom = browser.execute_script(
            "return document.querySelector(arguments[0]).getBoundingClientRect().bottom", selector
        )
        assert bottom < 900, selector
    small = browser.execute_script(
        "return [...document.querySelectorAll('main *')].filter(e => e.checkVisibility() && "
        "e.children.length === 0 && e.textContent.trim() && !e.closest('svg,.unseen') && "
        "parseFloat(getComputedStyle(e).fontSize) < 11).length"
    )
    assert small == 0


def test_print_hides_the_navigation_and_keeps_the_words(
    browser: webdriver.Chrome, sites: dict[str, Path]
) -> None:
    look(browser, sites["told"] / "drift.html")
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        assert not browser.find_element(By.CSS_SELECTOR, ".tabs").is_displayed()
        hidden = browser.execute_script(
            "return [...document.querySelectorAll('.finding > .body')]"
            ".filter(e => !e.checkVisibility({contentVisibilityAuto: true})).length"
        )
        assert hidden == 0
    finally:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def test_the_archive_unpacked_opens_as_the_site_does(
    browser: webdriver.Chrome, sites: dict[str, Path], tmp_path: Path
) -> None:
    files = {
        str(p.relative_to(sites["told"])): p.read_bytes()
        for p in sites["told"].rglob("*")
        if p.is_file()
    }
    (tmp_path / "report.zip").write_bytes(archive(files))
    shutil.unpack_archive(tmp_path / "report.zip", tmp_path / "from vault & #1")
    page = tmp_path / "from vault & #1" / "muster-report" / "index.html"
    assert troubles(browser, page) == []
    browser.find_element(By.CSS_SELECTOR, ".tabs a[href='drills.html']").click()
    assert browser.find_element(By.TAG_NAME, "h1").text == "Drills"
