"""The report page in headless Chromium, from disk: it plays, sorts, fits a phone, and stays in its folder."""

import json
import shutil
import time

import pytest
from fake_set import make_set

from espnet2_m2m.bin import report
from espnet2_m2m.scoring import scored_set

PROGRAMS = {name: shutil.which(name) for name in ("chromium", "chromedriver")}
pytestmark = pytest.mark.skipif(
    None in PROGRAMS.values(),
    reason="needs chromium and chromedriver on the PATH (apt-get install chromium chromium-driver)",
)
OPTIONS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    " --disable-component-update --disable-sync --autoplay-policy=no-user-gesture-required"
).split()
SECONDS = 3.0


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """index.html of two systems on three utterances."""
    root = tmp_path_factory.mktemp("a page")  # a path with a space
    data_dir, enhanced_dir = make_set(root, num_utterances=3, seconds=SECONDS)
    scored_set.score_set(data_dir, enhanced_dir, nj=0)
    for name in ("first", "second"):
        shutil.copytree(enhanced_dir, root / name / "enhanced_test")
    report.main(
        [
            "--data_dir",
            str(data_dir),
            "--out_dir",
            str(root / "report"),
            "--num_examples",
            "2",
            "--enhanced_dir",
            str(root / "first/enhanced_test"),
            str(root / "second/enhanced_test"),
        ]
    )
    return root / "report" / "index.html"


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = PROGRAMS["chromium"]
    for option in (*OPTIONS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(PROGRAMS["chromedriver"]))
    yield driver
    driver.quit()


@pytest.fixture
def browser(chromium, page):
    """The page just opened, at desktop width; in the end, no complaints and nothing from elsewhere."""
    chromium.get_log("performance"), chromium.get_log("browser")
    set_width(chromium, 1200)
    chromium.get("about:blank")  # else a fragment of the address would keep the old page
    chromium.get(page.as_uri())
    # 3 s of audio last 12: a slow machine must not reach the end between two commands.
    chromium.execute_script(
        "for (const audio of document.querySelectorAll('audio')) audio.defaultPlaybackRate = audio.playbackRate = 0.25"
    )
    yield chromium
    assert chromium.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in chromium.get_log("performance")]
    requests = [event["params"] for event in events if event["method"] == "Network.requestWillBeSent"]
    urls = [request["request"]["url"] for request in requests]
    folder = page.parent.as_uri()
    assert page.as_uri() in urls
    assert [url for url in urls if not url.startswith((f"{folder}/", "data:", "about:"))] == []


def set_width(driver, width):
    driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500},
    )


def wait(condition, seconds=40):
    deadline = time.time() + seconds
    while not (found := condition()):
        assert time.time() < deadline, "waited in vain"
        time.sleep(0.02)
    return found


def find(browser, selector):
    return browser.find_elements("css selector", selector)


def clips(browser, example=1):
    """(name, position in seconds, is playing) of every player of an example."""
    return browser.execute_script(
        "return [...document.querySelectorAll(`#example-${arguments[0]} audio`)]"
        ".map((a) => [a.getAttribute('aria-label'), a.currentTime, !a.paused])",
        example,
    )


def playing(browser, example=1):
    """(name, position) of the only player that plays; None."""
    found = [(name, position) for name, position, plays in clips(browser, example) if plays]
    assert len(found) <= 1, found
    return found[0] if found else None


def press(browser, *keys):
    browser.switch_to.active_element.send_keys(*keys)


def test_one_button_plays_and_a_switch_keeps_the_position(browser):
    from selenium.webdriver.common.keys import Keys

    (play,) = find(browser, "#example-1 .play")
    (slider,) = find(browser, "#example-1 .transport input")
    play.click()
    name, _ = wait(lambda: playing(browser))
    assert name.startswith("Far-field mixture") and play.text == "Pause"
    for card, name in ((2, "Talker 1: first"), (4, "Talker 1: Reference"), (7, "Talker 2: second")):
        slider.send_keys(Keys.HOME)  # far from the end, however slow the machine
        wait(lambda: playing(browser)[1] > 0.3)
        before, after = browser.execute_script(
            """
            const [old] = [...document.querySelectorAll("#example-1 audio")].filter((audio) => !audio.paused);
            const clip = document.querySelectorAll("#example-1 .clip")[arguments[0]];
            const before = old.currentTime;
            clip.querySelector("label").click();
            return [before, clip.querySelector("audio").currentTime]""",
            card,
        )
        assert after == pytest.approx(before, abs=0.05)
        now = wait(lambda: playing(browser))
        assert now[0].startswith(name)
        wait(lambda after=after: playing(browser)[1] > after)  # and goes on
    play.click()
    assert playing(browser) is None and play.text == "Play"
    position = clips(browser)[7][1]
    find(browser, "#example-1 .clip label")[0].click()
    assert clips(browser)[0][1] == pytest.approx(position, abs=0.02), "the position is kept in a pause, too"
    (head,) = find(browser, "#example-1 .clip:has(input:checked) .playhead")
    share = float(head.get_attribute("style").partition("left: ")[2].partition("%")[0]) / 100
    assert share * SECONDS == pytest.approx(position, abs=0.1)

    find(browser, "#example-2 .play")[0].click()
    wait(lambda: playing(browser, 2))
    play.click()
    wait(lambda: playing(browser))
    assert playing(browser, 2) is None, "one plays at a time"
    slider.send_keys(Keys.END)
    wait(lambda: playing(browser) is None and play.text == "Play")  # at the end


def test_playing_by_keyboard(browser):
    from selenium.webdriver.common.keys import Keys

    (slider,) = find(browser, "#example-1 .transport input")
    slider.send_keys(Keys.END)
    assert clips(browser)[0][1] == pytest.approx(SECONDS, abs=0.1)
    slider.send_keys(Keys.HOME)
    press(browser, Keys.ARROW_RIGHT)
    assert clips(browser)[0][1] == pytest.approx(0.1)
    press(browser, Keys.TAB)
    assert browser.switch_to.active_element.get_attribute("aria-label") == "Far-field mixture, mic 0"
    press(browser, Keys.SPACE)
    wait(lambda: playing(browser))
    press(browser, Keys.ARROW_DOWN)
    wait(lambda: playing(browser) and playing(browser)[0].startswith("Talker 1: Close-talk mixture"))
    press(browser, Keys.SPACE)
    assert playing(browser) is None


def test_a_point_of_the_scatter_plot_leads_to_its_example(browser):
    from selenium.webdriver.common.keys import Keys

    best = "#scatter a[aria-label*='a-b-test00000, talker 2']"
    assert len(find(browser, "#scatter a")) == 4 and len(find(browser, "#scatter path[class^=speaker]")) == 6
    find(browser, best)[0].send_keys(Keys.ENTER)  # of the second example; upwards is the second system
    assert wait(lambda: playing(browser, 2))[0] == "Talker 2: second, a-b-test00000"
    assert browser.current_url.endswith("#example-2")
    assert browser.switch_to.active_element.get_attribute("aria-label") == "Talker 2: second"
    browser.execute_script("scrollTo(0, 0)")
    find(browser, "#scatter a")[0].click()
    wait(lambda: playing(browser, 1) or playing(browser, 2))

    # Other axes: the points move, and the plot says what it shows.
    from selenium.webdriver.support.select import Select

    before = find(browser, best)[0].get_attribute("transform")
    Select(find(browser, "#scatter-x")[0]).select_by_visible_text("SI-SDR of the mixture (dB)")
    Select(find(browser, "#scatter-y")[0]).select_by_visible_text("SI-SDR improvement, first (dB)")
    name = find(browser, "#scatter svg")[0].get_attribute("aria-label")
    assert name == "Scatter plot: SI-SDR improvement, first (dB) over SI-SDR of the mixture (dB), 6 signals"
    assert find(browser, best)[0].get_attribute("transform") != before


def test_tables_sort_by_click_and_by_keyboard(browser):
    from selenium.webdriver.common.keys import Keys

    find(browser, "#results summary")[0].click()
    table = find(browser, "#results details table")[0]

    def column(number):
        return [
            row.find_elements("css selector", "th, td")[number].text
            for row in table.find_elements("css selector", "tbody tr")
        ]

    def sorted_by():
        return {
            head.text.split()[0]: head.get_attribute("aria-sort")
            for head in table.find_elements("css selector", "th[aria-sort]")
        }

    utterance, _, mixture, *_ = table.find_elements("css selector", "thead button")
    values = [float(value) for value in column(2)]
    assert len(values) == 6 and sorted_by() == {}
    mixture.click()
    assert [float(value) for value in column(2)] == sorted(values, reverse=True)
    assert sorted_by() == {"Mixture": "descending"}
    mixture.send_keys(Keys.ENTER)
    assert [float(value) for value in column(2)] == sorted(values)
    assert sorted_by() == {"Mixture": "ascending"}
    utterance.send_keys(Keys.SPACE)
    assert column(0) == sorted(column(0)) and sorted_by() == {"Utterance": "ascending"}

    # The mixture has no improvement: last in either order.
    heads = find(browser, "#results thead")[0].find_elements("css selector", "button")
    for _ in range(2):
        heads[5].click()
        assert find(browser, "#results tbody")[0].find_elements("css selector", "th")[-1].text != "first"
        improvements = [
            row.find_elements("css selector", "td")[4].text
            for row in find(browser, "#results table")[0].find_elements("css selector", "tbody tr")
        ]
        assert improvements[:2] == [text for text in improvements if text]


def test_a_phone_needs_no_horizontal_scrolling(browser):
    for width in (375, 320):
        set_width(browser, width)
        browser.execute_script("for (const d of document.querySelectorAll('details')) d.open = true")
        # One script: between two calls the plot may have been drawn anew for the new width.
        narrow = f"return document.querySelector('#scatter svg').clientWidth < {width}"
        wait(lambda narrow=narrow: browser.execute_script(narrow))
        assert browser.execute_script("return document.documentElement.scrollWidth") == width
    for button in find(browser, ".play"):
        assert button.size["height"] >= 38, "large enough for a finger"


def test_whatever_has_the_focus_shows_it(browser):
    from selenium.webdriver.common.keys import Keys

    seen = set()
    press(browser, Keys.TAB)
    while (element := browser.switch_to.active_element).tag_name != "body":  # behind the last it starts anew
        # Of a radio button its card shows it, of a point its ring.
        outlined = browser.execute_script(
            """
            const style = (node) => getComputedStyle(node);
            const [element] = arguments;
            const card = element.closest(".clip");
            const ring = element.querySelector(".ring");
            return [element.tagName, style(card ?? element).outlineStyle !== "none" ||
                    (ring !== null && style(ring).strokeWidth === "4px")]""",
            element,
        )
        assert outlined[1], element.get_attribute("outerHTML")[:200]
        seen.add(outlined[0])
        press(browser, Keys.TAB)
    assert {"A", "a", "BUTTON", "SELECT", "INPUT", "SUMMARY"} <= seen


def test_light_and_dark(browser):
    found = set()
    for theme in ("light", "dark"):
        browser.execute_cdp_cmd(
            "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": theme}]}
        )
        found.add(browser.execute_script("return getComputedStyle(document.body).backgroundColor"))
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert len(found) == 2
