"""The page as a file: what is in it, and that it needs nothing else. See test_page_in_browser."""

import base64
import hashlib
import html.parser
import itertools
import json
import re
import zlib

import numpy as np
import pytest
from scoring import MadeUp, report_of

from gpt2.evaluation import pictures
from gpt2.evaluation.page import PARTS, VISIBLE, pack, page
from user_error import UserError

TEXT = "Now is the winter\nof our <b>discontent</b> & é 中文.\n"
NASTY = (
    "</script><script>hacked=1</script><!-- <img src=x onerror=hacked=1> ]]> --!> "
    "\"'`${hacked=1} \x00 \x1b \r\n \u2028 \u2029 \u202eright to left\u202c \u200f "
    "\N{FAMILY} \N{THUMBS UP SIGN}\N{EMOJI MODIFIER FITZPATRICK TYPE-5} &lt; &#0; \ufeff e"
    + "\u0301" * 10000
    + " done\n"
)


class Parsed(html.parser.HTMLParser):
    """Text of the paragraphs of each text, the data, the scripts, the styles, the attributes."""

    def __init__(self, source):
        super().__init__()
        self.stack, self.texts, self.data, self.scripts, self.styles = [], [], [], [], []
        self.attributes = []
        self.feed(source)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.attributes.append((tag, attributes))
        if tag in ("p", "script", "style", "div"):
            self.stack.append((tag, attributes))
        if attributes.get("class") == "text":
            self.texts.append("")

    def handle_endtag(self, tag):
        if self.stack and self.stack[-1][0] == tag:
            self.stack.pop()

    def handle_data(self, data):
        tag, attributes = self.stack[-1] if self.stack else ("", {})
        if tag == "script":
            is_data = attributes.get("type") == "application/json"
            (self.data if is_data else self.scripts).append(data)
        elif tag == "style":
            self.styles.append(data)
        elif tag == "p" and any(a.get("class") == "text" for _, a in self.stack):
            self.texts[-1] += data


def unpack(column):
    packed = zlib.decompress(base64.b64decode(column["data"]))
    return np.frombuffer(packed, f"<u{column['bytes']}")


def page_of(*arguments):
    return "".join(page(report_of(*arguments)))


def test_the_text_is_in_the_page_as_plain_text():
    parsed = Parsed(page_of({"a": TEXT}))
    assert parsed.texts == [TEXT]


def test_columns_hold_what_the_model_made_of_each_token():
    tokens = [token for (token,) in report_of({"a": TEXT}, [MadeUp(top=2)]).texts[0].tokens()]
    (data,) = map(json.loads, Parsed(page_of({"a": TEXT}, [MadeUp(top=2)])).data)
    assert sum(data["paragraphs"]) == len(tokens)
    assert unpack(data["shared"]["id"]).tolist() == [token.id for token in tokens]
    assert unpack(data["shared"]["length"]).tolist() == [len(token.text) for token in tokens]
    (model,) = data["models"]
    assert model["name"] == "1M"
    columns = {name: unpack(column) for name, column in model["columns"].items()}
    for name, field, scale in [
        ("surprise", "logprob", -1000),
        ("rank", "rank", 1),
        ("entropy", "entropy", 1000),
        ("top", "top_probability", 1000),
    ]:
        expected = [scale * getattr(token, field) for token in tokens]
        np.testing.assert_allclose(columns[name], expected, atol=0.51)
    others = [other for token in tokens for other in token.alternatives]
    assert columns["alternative"].tolist() == [other.id for other in others]
    expected = [10000 * other.probability for other in others]
    np.testing.assert_allclose(columns["share"], expected, atol=0.51)
    assert all(data["vocabulary"][str(other.id)] is not None for other in others)


@pytest.mark.parametrize(
    ("values", "size"), [([], 1), ([0, 255], 1), ([256], 2), ([65535.4], 2), ([70000], 4)]
)
def test_numbers_take_the_bytes_that_the_largest_needs(values, size):
    column = pack(values)
    assert column["bytes"] == size
    assert unpack(column).tolist() == [round(value) for value in values]


def test_an_astral_character_counts_as_two_units_as_in_javascript():
    (data,) = map(json.loads, Parsed(page_of({"a": "\N{THUMBS UP SIGN} x"})).data)
    assert sum(unpack(data["shared"]["length"])) == 4


@pytest.mark.parametrize("name", ["text", "name"])
def test_text_cannot_leave_its_place(name):
    source = page_of({"a": NASTY} if name == "text" else {NASTY: TEXT})
    parsed = Parsed(source)
    shown = NASTY.translate(VISIBLE)
    assert parsed.texts == [shown if name == "text" else TEXT]
    assert [tag for tag, _ in parsed.attributes].count("script") == 2
    assert not any(name.startswith("on") for _, a in parsed.attributes for name in a)
    assert not any(tag in ("img", "b") for tag, _ in parsed.attributes)
    assert not re.search("[\x00\r\x1b]", source)
    assert len(parsed.data) == 1
    assert "<" not in parsed.data[0]


def test_only_the_code_of_the_page_may_run():
    parsed = Parsed(page_of({"a": TEXT}))
    (policy,) = (
        a["content"] for _, a in parsed.attributes if "Content-Security-Policy" in a.values()
    )
    for kind, (code,) in [("script", parsed.scripts), ("style", parsed.styles)]:
        digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none';")
    assert not any("style" in attributes for _, attributes in parsed.attributes)


def test_the_page_needs_nothing_else():
    source = page_of({"a": TEXT})
    assert not re.search(r"https?:|\b(src|href)=|@import|url\(", source)


def test_the_summary_has_names_totals_and_pictures_with_text_alternatives():
    source = page_of({"notes.txt": TEXT})
    assert "<title>How likely each token is: notes.txt</title>" in source
    assert "Scored by the model 1M" in source
    assert "<dt>bits per byte</dt>" in source
    alternatives = re.findall(r'<svg [^>]*role="img" aria-label="([^"]*)"', source)
    assert [text.partition(".")[0] for text in alternatives] == [
        "Rank",
        "Entropy of the prediction, in nats",
        "Probability of the likeliest token",
    ]


def test_two_texts_stand_side_by_side_and_many_are_rows():
    two = page_of({"human": TEXT, "model": TEXT})
    assert '<main class="pair">' in two
    assert '<th scope="col">human</th><th scope="col">model</th>' in two
    many = page_of({"a": TEXT, "b": "", "c": TEXT})
    assert '<main class="">' in many
    assert many.count('<th scope="row">') == 3
    assert len(Parsed(many).texts) == 3


def test_a_second_model_brings_the_colours_of_the_difference():
    source = page_of({"a": TEXT}, [MadeUp(1), MadeUp(2)])
    assert 'data-colour="difference"' in source
    assert "the model 1M compared with the model 1M" in source
    assert 'value="difference"' not in page_of({"a": TEXT})


def test_an_empty_text_is_an_error_before_anything_is_written():
    with pytest.raises(UserError, match="the text is empty"):
        next(page(report_of({"a": ""})))


def test_200_kilobytes_make_at_most_two_and_a_half_megabytes_even_one_token_a_byte():
    english = page_of({"a": "Now is the winter of our discontent\n" * (200_000 // 36)})
    bytes_ = page_of({"a": "中文字" * (200_000 // 9)})
    assert len(english.encode()) < 2_500_000
    assert len(bytes_.encode()) < 2_500_000


def test_paragraphs_end_with_lines_and_stay_short_without_lines():
    source = page_of({"a": "word " * 4000 + "\n" + "A line.\n" * 400})
    text = source.partition('class="text"')[2].partition("<script")[0]
    paragraphs = re.findall("<p>(.*?)</p>", text, re.DOTALL)
    assert "".join(paragraphs) == "word " * 4000 + "\n" + "A line.\n" * 400
    assert max(map(len, paragraphs)) < 4100
    assert all(text.endswith("\n") for text in paragraphs[5:])


def test_histograms_put_numbers_where_they_belong():
    picture = pictures.of_ranks(np.array([1, 2, 5, 6, 1000, 1001, 50000, 1]))
    assert "1: 25.0%. 2-5: 25.0%. 6-10: 12.5%" in picture
    assert "501-1000: 12.5%. 1001 or more: 25.0%" in picture
    assert "1 to 2: 50.0%" in pictures.of_entropies(np.array([0.5, 1.99]))
    assert "90 to 100%: 100.0%" in pictures.of_probabilities(np.array([1.0000001, 0.95]))
    assert "nan" not in pictures.of_entropies(np.array([]))


# Colours ---------------------------------------------------------------------------------------

# How cone cells of people without long-, middle- and short-wave ones see linear RGB. Source:
# Viénot, Brettel and Mollon, "Digital video colourmaps for checking the legibility of displays by
# dichromats" (1999), for the first two; the third after Brettel and others (1997), simplified.
VISION = {
    "usual": np.eye(3),
    "protanopia": [[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]],
    "deuteranopia": [[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]],
    "tritanopia": [[1, 0.14461, -0.14461], [0, 0.85924, 0.14076], [0, 0.85924, 0.14076]],
    "grey": [[0.2126, 0.7152, 0.0722]] * 3,
}


def palettes():
    """The colours of the light and of the dark page, linear RGB by name."""
    style = (PARTS / "page.css").read_text(encoding="utf-8")
    for block in re.findall(r":root \{(.*?)\}", style, re.DOTALL)[:2]:
        values = re.findall(r"--(\w+): #(\w{6});", block)
        rgb = {name: np.array([int(x[i : i + 2], 16) for i in (0, 2, 4)]) for name, x in values}
        yield {
            name: np.where(c <= 10, c / 255 / 12.92, ((c / 255 + 0.055) / 1.055) ** 2.4)
            for name, c in rgb.items()
        }


def lab(linear):
    """CIELAB of linear sRGB."""
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    xyz = np.array(to_xyz) @ np.clip(linear, 0, 1) / [0.9505, 1, 1.089]
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("vision", VISION)
def test_colours_differ_for_colour_blind_people(vision):
    for palette in palettes():
        seen = {name: lab(np.array(VISION[vision]) @ rgb) for name, rgb in palette.items()}
        steps = [f"k{i}" for i in range(5)]
        for a, b in itertools.combinations(steps, 2):
            assert np.linalg.norm(seen[a] - seen[b]) > 7, (a, b)
        lightness = [seen[name][0] for name in steps]
        assert sorted(lightness) in (lightness, lightness[::-1])
        if vision != "grey":  # there, both ends are the same; underlines tell them apart in print
            for a, b in itertools.combinations([f"d{i}" for i in range(5)], 2):
                assert np.linalg.norm(seen[a] - seen[b]) > 7, (a, b)


def test_text_can_be_read_on_every_colour():
    for palette in palettes():
        luminance = {name: rgb @ [0.2126, 0.7152, 0.0722] for name, rgb in palette.items()}
        for name in ["paper", *[f"{kind}{i}" for kind in "kd" for i in range(5)]]:
            low, high = sorted([luminance["ink"], luminance[name]])
            assert (high + 0.05) / (low + 0.05) >= 4.5, name
