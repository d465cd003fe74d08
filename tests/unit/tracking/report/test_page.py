"""The page in a real headless Chromium: it fetches nothing, complains of nothing, and works."""

import json
import shutil
import time

import pytest

from rayprune.errors import StorageError
from rayprune.tracking.report import write_report
from rayprune.tracking.report.bench_page import write_bench
from rayprune.tracking.report.certificate_page import chart_data, write_certificate_page
from rayprune.tracking.report.fit_page import render_fit
from rayprune.tracking.report.sensitivity_page import write_sensitivity_page
from tests.doubles.made_up.bench import made_up_bench
from tests.doubles.made_up.certificate import made_up_certificate, made_up_pairs
from tests.doubles.made_up.fit import made_up_fit
from tests.doubles.made_up.scan import made_up_scan
from tests.doubles.made_up.sweep import write_made_up_run, write_made_up_sweep

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
SECTIONS = [
    "front",
    "return",
    "sparsity",
    "compare",
    "heat",
    "lineage",
    "choices",
    "learning",
    "runs",
]


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    place = tmp_path_factory.mktemp("made_up")
    runs = [write_made_up_run(place / f"r{n}", name="ppo", seed=n, dense=490.0) for n in range(3)]
    return [write_made_up_sweep(place / "sweep"), *runs]


@pytest.fixture(scope="module")
def page(paths, tmp_path_factory):
    return write_report(paths, tmp_path_factory.mktemp("page") / "inner" / "report.html")


@pytest.fixture(scope="module")
def chromium():
    selenium = pytest.importorskip("selenium.webdriver", reason="selenium drives the browser")
    if not CHROMIUM or not DRIVER:
        pytest.skip("needs chromium and chromedriver (Debian: chromium, chromium-driver)")
    options = selenium.ChromeOptions()
    options.binary_location = CHROMIUM
    # Root has no sandbox in a container; /dev/shm is small there.
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = selenium.Chrome(options=options, service=selenium.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def opened(chromium, page):
    """The page, open at the width of a laptop."""
    chromium.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": 1600, "height": 900, "deviceScaleFactor": 1, "mobile": False},
    )
    chromium.get(page.as_uri())
    return wait_until_drawn(chromium)


def wait_until_drawn(driver):
    script = "return [...document.querySelectorAll('.plot')].every((plot) => plot.firstChild)"
    until = time.monotonic() + 120
    while not driver.execute_script(script):
        assert time.monotonic() < until, "the charts were not drawn"
        time.sleep(0.05)
    return driver


def requested(driver):
    """Return the addresses that the browser asked for since the last call."""
    messages = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    return [
        message["params"]["request"]["url"]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
    ]


def column(driver, name):
    headings = driver.find_elements("css selector", "#runs th button")
    place = [heading.text for heading in headings].index(name)
    cells = f"#runs tbody td:nth-child({place + 1})"
    return headings[place], lambda: [
        cell.text for cell in driver.find_elements("css selector", cells)
    ]


def show(chromium, page, width, scheme):
    """Open a page on a screen of so many pixels; the browser has nothing to complain of."""
    chromium.get_log("browser")
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    chromium.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500},
    )
    chromium.get(page.as_uri())
    wait_until_drawn(chromium)
    assert chromium.get_log("browser") == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1600])
def test_it_renders_without_a_complaint_a_request_or_an_overflow(chromium, page, width, scheme):
    chromium.get_log("performance")
    show(chromium, page, width, scheme)
    assert {url for url in requested(chromium) if not url.startswith("data:")} == {page.as_uri()}
    root = "document.documentElement"
    assert chromium.execute_script(f"return {root}.scrollWidth - {root}.clientWidth") == 0
    sections = chromium.find_elements("css selector", "main section")
    assert [section.get_attribute("id") for section in sections] == [*SECTIONS, "failures"]
    ground = chromium.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert ground == {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 23, 27)"}[scheme]


@pytest.mark.parametrize(("width", "scheme"), [(400, "dark"), (1600, "light")])
def test_the_page_of_a_scan_renders_as_well(chromium, tmp_path, width, scheme):
    page = write_sensitivity_page(made_up_scan(), tmp_path / "scan.html")
    show(chromium, page, width, scheme)
    root = "document.documentElement"
    assert chromium.execute_script(f"return {root}.scrollWidth - {root}.clientWidth") == 0
    chromium.find_elements("css selector", "#layers th button")[4].click()
    cells = chromium.find_elements("css selector", "#layers tbody td:nth-child(5)")
    assert [cell.text for cell in cells] == ["60.0 %", "80.0 %", "81.0 %", "85.0 %", "93.0 %"]


def test_the_page_of_a_certificate_renders_as_well(chromium, tmp_path):
    page = tmp_path / "certificate.html"
    write_certificate_page(made_up_certificate(), made_up_pairs(), page)
    chromium.get_log("browser")
    chromium.get(page.as_uri())
    wait_until_drawn(chromium)
    assert chromium.get_log("browser") == []
    count = "return document.querySelectorAll(arguments[0]).length"
    assert chromium.execute_script(count, '[data-chart="pairs"] circle.point') == 3
    assert chromium.execute_script(count, '[data-chart="evidence"] polyline') == 2
    chromium.find_elements("css selector", "#questions th button")[6].click()
    cells = chromium.find_elements("css selector", "#questions tbody td:nth-child(7)")
    assert [cell.text for cell in cells] == ["0.0013", "0.046"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1200, 1600])
def test_the_page_of_a_fit_renders_as_well(chromium, tmp_path, width, scheme):
    result, page = made_up_fit(), tmp_path / "fit.html"
    result["judged"][1]["reason"] = "It earns 40.0 on the validation seeds, 475.0 are asked. " * 4
    data = chart_data(made_up_certificate(), made_up_pairs())
    page.write_text(render_fit(result, data), encoding="utf-8")
    show(chromium, page, width, scheme)
    cut = "return arguments[0].scrollWidth - arguments[0].clientWidth"
    whole = chromium.find_element("css selector", "html")
    assert chromium.execute_script(cut, whole) == 0
    # On a phone a table scrolls in its own box; elsewhere nothing of it is out of sight.
    tables = chromium.find_elements("css selector", "#budgets .scroll, #candidates .scroll")
    assert len(tables) == 2
    if width > 1000:
        assert [chromium.execute_script(cut, table) for table in tables] == [0, 0]


def test_the_page_of_a_bench_renders_as_well(chromium, tmp_path):
    page = write_bench(made_up_bench(), tmp_path)
    chromium.get_log("browser")
    chromium.get(page.as_uri())
    wait_until_drawn(chromium)
    assert chromium.get_log("browser") == []
    chart = "[...document.querySelectorAll('rect.mark')]"
    script = f"return {chart}.map((bar) => +bar.getAttribute('width'))"
    bars = chromium.execute_script(script)
    assert len(bars) == 5
    assert bars[0] > bars[1] > bars[2] > bars[3] > bars[4]


def test_no_number_in_a_drawing_is_broken(opened):
    broken = opened.execute_script(
        "return [...document.querySelectorAll('svg *')].filter((node) => "
        "[...node.attributes].some((a) => /NaN|undefined|Infinity/.test(a.value))).length"
    )
    assert broken == 0


def test_every_axis_has_a_title(opened):
    titles = opened.execute_script(
        "return [...document.querySelectorAll('figure')].map((figure) => "
        "[figure.dataset.chart, figure.querySelectorAll('text.title').length])"
    )
    least = {"front": 2, "return": 2, "sparsity": 2, "choices": 5}
    assert all(count >= least.get(chart, 1) for chart, count in titles)


def test_hovering_a_point_of_the_front_shows_its_config(opened):
    from selenium.webdriver import ActionChains
    from selenium.webdriver.support.wait import WebDriverWait

    point = opened.find_element("css selector", "#front circle.mark[r='5.5']")
    opened.execute_script("arguments[0].scrollIntoView({block: 'center'})", point)

    def hover(driver):
        # A browser tells of a scroll later, and a scroll hides what is told.
        ActionChains(driver).move_by_offset(1, 0).move_to_element(point).perform()
        return driver.find_element("css selector", "#tip").text

    told = WebDriverWait(opened, 10).until(hover)
    for part in ("on the front", "validation return", "test return", "pruning.criterion"):
        assert part in told


def test_points_of_the_front_lie_above_those_they_dominate(opened):
    radii = opened.execute_script(
        "return [...document.querySelectorAll('#front circle.mark')]"
        ".map((c) => c.getAttribute('r'))"
    )
    assert set(radii) == {"4", "5.5"}
    assert radii == sorted(radii)


def test_the_marks_of_a_chart_can_be_reached_by_keys(opened):
    from selenium.webdriver.common.keys import Keys

    told = []
    for name in ("front", "compare", "heat", "lineage", "choices"):
        plot = opened.find_element("css selector", f"#{name} .plot")
        plot.send_keys(Keys.ARROW_RIGHT)
        tip = opened.find_element("css selector", "#tip")
        first = tip.text
        plot.send_keys(Keys.ARROW_RIGHT)
        told.append((first, tip.text))
        plot.send_keys(Keys.ESCAPE)
        assert not tip.is_displayed()
    for first, second in told:
        assert first
        assert second
        assert first != second


def test_a_click_on_a_heading_sorts_and_a_second_turns_it_round(opened):
    heading, texts = column(opened, "sparsity")
    heading.click()
    rising = texts()
    assert rising == sorted(rising, key=lambda text: float(text.split()[0]))
    heading.click()
    assert [float(t.split()[0]) for t in texts()] == [float(t.split()[0]) for t in rising][::-1]
    cell = heading.find_element("xpath", "..")
    assert cell.get_attribute("aria-sort") == "descending"


def test_rows_without_a_value_stay_below_either_way(opened):
    heading, texts = column(opened, "test return, IQM [95 %]")
    for _ in range(2):
        heading.click()
        assert texts()[-1] == ""


def test_the_table_can_be_copied_as_markdown(opened):
    opened.execute_script(
        "window.copied = null; const real = document.execCommand;"
        "navigator.clipboard.writeText = async (text) => { window.copied = text; };"
    )
    opened.find_element("css selector", "#copy").click()
    assert opened.find_element("css selector", "#copied").text == "Copied."
    lines = opened.execute_script("return window.copied").splitlines()
    assert lines[0].startswith("| run | sweep |")
    assert set(lines[1]) <= set("|-: ")
    assert len(lines) == 2 + 8 + 3
    assert "490.0 [490.0" not in lines[0]


def test_a_page_of_one_run_leaves_out_what_it_has_no_data_for(tmp_path, paths):
    text = write_report(paths[1:2], tmp_path / "report.html").read_text()
    for name in ("front", "return", "sparsity", "compare", "heat", "runs"):
        assert f'<section id="{name}"' in text
    for name in ("lineage", "choices", "failures"):
        assert f'<section id="{name}"' not in text


def test_names_cannot_break_out_of_the_page(tmp_path):
    name = "</script><script>alert(1)</script>{{data}}"
    run = write_made_up_run(tmp_path / "run", name=name)
    text = write_report([run], tmp_path / "report.html").read_text()
    assert "<script>alert" not in text
    assert text.count("</script>") == 2


def test_a_page_that_cannot_be_written_is_told(tmp_path, paths):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="can't be written"):
        write_report(paths[1:2], tmp_path / "file" / "report.html")


def test_the_page_stays_light(page):
    assert page.stat().st_size < 400_000
