"""The page in a real Chromium: what is shown, by pointer, finger and keys, and that nothing runs.

Each test also fails if the page logs an error or asks for anything but itself.
"""

import re
import subprocess
import sys

import pytest
from chromium import browser
from conftest import ROOT
from scoring import MadeUp, report_of
from test_page import NASTY

from gpt2.evaluation.page import VISIBLE, page

TEXT = "Now is the winter of our discontent\nMade glorious summer by this sun of York;\n" * 3


@pytest.fixture(scope="module")
def chromium():
    with browser() as running:
        yield running


@pytest.fixture
def show(chromium, tmp_path):
    """A function that opens a page of texts; the arguments are those of report_of."""
    contexts, complaints, requests = [], [], []

    def opened(texts, scorers=None, **context):
        path = tmp_path / "page.html"
        path.write_text("".join(page(report_of(texts, scorers))), encoding="utf-8", newline="")
        contexts.append(chromium.new_context(**context))
        tab = contexts[-1].new_page()
        tab.set_default_timeout(100_000)
        tab.on("console", lambda message: complaints.append(message.text))
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.on("request", lambda request: requests.append(request.url))
        tab.goto(path.as_uri())
        tab.locator(".text").first.scroll_into_view_if_needed()
        tab.wait_for_selector(".text span")
        return tab

    yield opened
    for context in contexts:
        context.close()
    assert complaints == []
    assert [url for url in requests if not url.startswith("file:")] == []
    assert len(requests) == len(contexts)


def scores_of(text, **options):
    (scored,) = report_of({"a": text}, [MadeUp(**options)]).texts
    return [token for (token,) in scored.tokens()]


def details(tab):
    return tab.inner_text("#details")


def test_pointing_at_a_token_shows_its_numbers_and_alternatives(show):
    tab = show({"a": TEXT}, [MadeUp(top=4)])
    token = scores_of(TEXT, top=4)[2]
    tab.hover('[data-i="2"]')
    shown = details(tab)
    assert f"token 3 of {len(scores_of(TEXT))}, id {token.id}" in shown
    assert re.search(rf"Log-probability\s+{token.logprob:.3f}", shown)
    assert re.search(rf"Rank\s+{token.rank}\b", shown)
    assert re.search(rf"Entropy\s+{token.entropy:.3f}", shown)
    widths = tab.eval_on_selector_all(".bar", "bars => bars.map((bar) => bar.style.width)")
    expected = [100 * other.probability for other in token.alternatives]
    assert [float(width[:-1]) for width in widths] == pytest.approx(expected, abs=0.02)
    tab.mouse.move(1, 1)
    assert "Point at a token" in details(tab)


def test_tapping_a_token_keeps_its_details(show):
    tab = show({"a": TEXT}, has_touch=True, viewport={"width": 360, "height": 640})
    tab.tap('[data-i="5"]')
    assert "token 6 of" in details(tab)
    assert tab.get_attribute(".chosen", "data-i") == "5"


def test_arrow_keys_go_from_token_to_token_and_line_to_line(show):
    tab = show({"a": TEXT})
    tab.focus(".text")

    def chosen(key):
        tab.keyboard.press(key)
        tab.wait_for_selector(".chosen", state="attached")
        return int(tab.get_attribute(".chosen", "data-i"))

    assert [chosen("ArrowRight") for _ in range(3)] == [0, 1, 2]
    assert chosen("ArrowLeft") == 1
    below = chosen("ArrowDown")
    top, bottom = (tab.locator(f'[data-i="{i}"]').bounding_box() for i in (1, below))
    assert 0 < bottom["y"] - top["y"] < 2 * top["height"]
    assert abs(bottom["x"] - top["x"]) < 60
    assert chosen("ArrowUp") in (0, 1, 2)
    last = len(scores_of(TEXT)) - 1
    assert chosen("End") == last
    assert chosen("ArrowRight") == last
    assert chosen("Home") == 0
    assert chosen("ArrowUp") == 0
    tab.keyboard.press("Escape")
    assert tab.locator(".chosen").count() == 0
    assert "Point at a token" in details(tab)


def test_keys_of_the_browser_are_left_alone(show):
    tab = show({"a": TEXT})
    tab.focus(".text")
    tab.keyboard.press("Control+End")
    assert tab.locator(".chosen").count() == 0


@pytest.mark.parametrize("dark", [False, True])
def test_colours_follow_the_numbers_and_the_readers_setting(show, dark):
    tab = show({"a": TEXT}, color_scheme="dark" if dark else "light")

    def classes():
        return tab.eval_on_selector_all(".text span", "all => all.map((s) => s.className)")

    scores = scores_of(TEXT)
    limits = {"rank": [10, 100, 1000], "entropy": [1, 2, 4, 6]}
    assert classes() == [f"k{sum(s.rank > limit for limit in limits['rank'])}" for s in scores]
    tab.check("input[value=entropy]")
    expected = [f"k{sum(round(s.entropy, 3) > x for x in limits['entropy'])}" for s in scores]
    assert classes() == expected
    assert tab.is_visible(".key.entropy")
    assert not tab.is_visible(".key.rank")
    tab.check("input[value=probability]")
    assert classes() != expected
    paper, ink = tab.evaluate(
        "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
    )
    brightness = [sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in (paper, ink)]
    assert (brightness[0] < brightness[1]) == dark


def test_adjacent_tokens_are_distinguishable_and_spans_do_not_move_the_text(show):
    tab = show({"a": TEXT})
    assert "inset" in tab.evaluate(
        "getComputedStyle(document.querySelector('.text span')).boxShadow"
    )
    height = "document.querySelector('.text').offsetHeight"
    coloured = tab.evaluate(height)
    tab.evaluate("document.querySelectorAll('.text p').forEach(uncolour)")
    assert tab.evaluate(height) == coloured


def test_nothing_is_wider_than_a_phone(show):
    tab = show(
        {"a": TEXT + "x" * 300, "b" * 80: TEXT, "c": TEXT},
        [MadeUp(top=5)],
        viewport={"width": 360, "height": 640},
    )
    tab.hover('section:nth-of-type(1) [data-i="0"]')
    assert tab.evaluate("document.documentElement.scrollWidth") == 360


def test_two_texts_are_side_by_side_where_there_is_room(show):
    tab = show({"human": TEXT, "model": TEXT}, viewport={"width": 1200, "height": 800})
    left, right = (box.bounding_box() for box in tab.locator("section").all())
    assert left["y"] == right["y"]
    assert left["x"] + left["width"] <= right["x"]
    tab.set_viewport_size({"width": 360, "height": 640})
    left, right = (box.bounding_box() for box in tab.locator("section").all())
    assert left["x"] == right["x"]


def test_print_has_the_colours_and_not_the_controls(show):
    tab = show({"a": TEXT * 40})
    coloured = tab.locator(".text span").count()
    tab.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert tab.locator(".text span").count() > coloured
    tab.emulate_media(media="print")
    assert not tab.is_visible("#details")
    assert not tab.is_visible("fieldset")
    assert tab.is_visible(".pictures svg")
    assert tab.evaluate("getComputedStyle(document.querySelector('.k1')).textDecorationStyle") == (
        "dotted"
    )


def test_a_screen_reader_gets_the_text_the_pictures_and_the_details(show):
    tab = show({"notes": TEXT})
    tree = tab.locator("body").aria_snapshot()
    assert "Now is the winter of our discontent" in re.sub(r"\s+", " ", tree)
    assert 'img "Rank. 1:' in tree
    assert 'heading "How likely each token is: notes" [level=1]' in tree
    assert tab.get_attribute("#details", "aria-live") == "polite"


@pytest.mark.parametrize("name", ["text", "name"])
def test_hostile_text_shows_as_itself_and_runs_nothing(show, name):
    tab = show({"a": NASTY} if name == "text" else {NASTY: TEXT, "b": TEXT})
    shown = NASTY.translate(VISIBLE)
    for _ in range(2):  # with its colours, and without
        if name == "text":
            assert "".join(tab.locator(".text p").all_text_contents()) == shown
        else:
            assert tab.text_content("h2") == shown
        tab.evaluate("document.querySelectorAll('.text p').forEach(uncolour)")
    assert tab.evaluate("typeof hacked") == "undefined"
    tab.focus(".text")
    for _ in range(3):
        tab.keyboard.press("ArrowRight")
    assert tab.locator("script").count() == (2 if name == "text" else 3)


def test_the_policy_stops_a_script_that_got_in(chromium, tmp_path):
    path = tmp_path / "page.html"
    source = "".join(page(report_of({"a": TEXT})))
    planted = "<script>hacked=1</script><img src=x onerror=hacked=1><p style='color:red'>"
    path.write_text(source.replace("</main>", planted + "</main>"), encoding="utf-8")
    tab = chromium.new_page()
    tab.goto(path.as_uri())
    tab.wait_for_selector(".text span")
    assert tab.evaluate("typeof hacked") == "undefined"
    assert tab.evaluate("document.querySelector('main > p').style.color") == ""
    tab.close()


def test_tokens_that_share_a_character_are_told_apart(show):
    text = "中 x"
    tokens = scores_of(text)
    assert [token.text for token in tokens][:3] == ["", "", "中"]
    tab = show({"a": text})
    tab.focus(".text")
    tab.keyboard.press("ArrowRight")
    assert "中 (part 1 of 3) token 1 of" in details(tab)
    assert tab.get_attribute(".chosen", "data-i") == "2"
    tab.keyboard.press("ArrowRight")
    assert "part 2 of 3" in details(tab)


def test_two_models_are_compared_in_colours_and_in_a_table(show):
    scorers = [MadeUp(1, top=2), MadeUp(2, top=2)]
    tab = show({"a": TEXT}, scorers)
    change = [
        round(b.logprob, 3) - round(a.logprob, 3)
        for a, b in zip(scores_of(TEXT, seed=1, top=2), scores_of(TEXT, seed=2, top=2), strict=True)
    ]
    classes = tab.eval_on_selector_all(".text span", "all => all.map((s) => s.className)")
    assert classes == [f"d{sum(x > limit for limit in (-2, -0.5, 0.5, 2))}" for x in change]
    tab.hover('[data-i="0"]')
    assert tab.locator("#details th[scope=col]").all_inner_texts() == ["1M", "1M"]
    assert tab.locator("#details ol").count() == 2


def test_only_what_is_near_the_window_is_drawn(show):
    tab = show({"a": TEXT * 300})
    total = len(scores_of(TEXT)) * 300
    assert 0 < tab.locator(".text span").count() < total / 10
    tab.evaluate("scrollTo(0, document.body.scrollHeight)")
    # Not wait_for_function: it evaluates a string, which the page's policy forbids.
    tab.wait_for_selector(".text div:last-child p:last-child span", state="attached")
    assert tab.locator(".text div:first-child p:first-child span").count() == 0
    assert tab.locator(".text span").count() < total / 10


def test_the_benchmark_runs(chromium):
    command = [sys.executable, str(ROOT / "benchmarks" / "bench_page.py"), "--smoke"]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=600)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^ +2000 +\d", done.stdout, re.MULTILINE)
