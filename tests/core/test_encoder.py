"""The encoder gives the ids of the original and of tiktoken, and so does its fast path."""

# ruff: noqa: RUF001  (letters that look like others are what is tested)

import collections
import functools
import itertools
import json
import random
import string

import numpy as np
import pytest
import tiktoken
from conftest import shared
from hypothesis import given, settings
from hypothesis import strategies as st

import encoder as encoder_module
import fast_bpe
from encoder import Encoder, bytes_to_unicode, get_encoder, join_pair
from fast_bpe import IrregularVocabulary, PieceTable
from user_error import UserError

END = "<|endoftext|>"
SAMPLE = (
    "She'd said they're here, we've 12 or 2019 things; DON'T I'll: the there then other, "
    "thethethe aaaaaaaa === -- --- (see) [1]\n\n    def f(x):\n\treturn x\n"
    "の魔 の魔法 中文的文章，中文。 È莫 ƶ掆 Ünïcödé naïve façade привет мир 안녕하세요 😀😀 🇩🇪"
) * 3


def vocabulary(merges, seed=0):
    """encoder.json as a dict: all bytes, the results of merges, and the end of text, shuffled."""
    tokens = [*bytes_to_unicode().values(), *dict.fromkeys(a + b for a, b in merges), END]
    random.Random(seed).shuffle(tokens)
    return {token: i for i, token in enumerate(tokens)}


def train(text, n_merges):
    """The pairs that byte pair encoding learns from a text, the most frequent first."""
    spell = bytes_to_unicode()
    words = [[spell[b] for b in p.encode()] for p in encoder_module.PATTERN.findall(text)]
    merges = []
    for _ in range(n_merges):
        counts = collections.Counter(pair for word in words for pair in itertools.pairwise(word))
        merges.append(max(counts, key=lambda pair: (counts[pair], pair)))
        words = [join_pair(word, merges[-1]) for word in words]
    return merges


@functools.cache
def trained():
    merges = train(SAMPLE, 150)
    return Encoder(vocabulary(merges), merges)


@functools.cache
def load_gpt2():
    return get_encoder("gpt2", models_dir=shared("gpt2").parent)


@pytest.fixture
def gpt2():
    return load_gpt2()


@pytest.fixture(scope="module", params=[trained, load_gpt2], ids=["trained", "gpt2"])
def encoder(request):
    return request.param()


# Texts joined from pieces that have caused errors in byte pair encoders.
TRICKY = st.lists(
    st.one_of(
        st.sampled_from(["'s", "'S", "'re", "'ll", "''d", "don't", "DON'T", "’s", " '", "'", END]),
        st.sampled_from([" ", "  ", "\n", "\r\n", "\t", "\x0b", "\x1c", "\x1f", "\x85", "\xa0"]),
        st.sampled_from(["\u2003", "\u2028", "\u3000", "\u200b", "\ufeff", "\x00", "\ufffd"]),
        st.sampled_from(["の魔", "の魔法", "È莫", "ƶ掆", "中文", "掆", "莫", "サーティ", "한국"]),
        st.sampled_from(
            ["😀", "👩\u200d👧", "𝓗𝓲", "𠀀", "𝟘", "²", "Ⅷ", "१", "e\u0301", "привет", "مرحبا"]
        ),
        st.text(st.characters(codec="utf-8"), max_size=8),
        st.text(string.ascii_letters + string.digits + " .,'\n", max_size=12),
        st.text("ab ", max_size=12),
        st.text(st.characters(min_codepoint=0x3040, max_codepoint=0x9FFF), max_size=8),
    ),
    max_size=12,
).map("".join)


def test_encode_equals_the_original_on_golden_lines(gpt2):
    lines = shared("golden/encoder_golden.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 300
    for line in map(json.loads, lines):
        assert gpt2.encode(line["text"]) == line["ids"]
        assert gpt2.encode_simply(line["text"]) == line["ids"]
        assert gpt2.decode(line["ids"]) == line["text"]


@pytest.mark.parametrize("name", ["tinyshakespeare.txt", "web_english.txt"])
def test_encode_equals_tiktoken_on_a_corpus(gpt2, name):
    ranks = {
        bytes(gpt2.byte_decoder[char] for char in token): i
        for token, i in gpt2.encoder.items()
        if token != END
    }
    reference = tiktoken.Encoding(
        "gpt2",
        pat_str=encoder_module.PATTERN.pattern,
        mergeable_ranks=ranks,
        special_tokens={END: gpt2.encoder[END]},
    )
    text = shared(f"corpus/{name}").read_text(encoding="utf-8")
    ids = gpt2.encode(text)
    assert ids == reference.encode_ordinary(text)
    assert gpt2.decode(ids) == text
    # The same words again: they are remembered now, and are cut into chunks at other places.
    assert gpt2.encode(text[1:99_999]) == reference.encode_ordinary(text[1:99_999])
    marked = gpt2.encode(text, allow_special=True)
    assert marked == reference.encode(text, allowed_special={END})


@settings(max_examples=200, deadline=None)
@given(text=TRICKY)
def test_fast_path_equals_the_definition_and_round_trips(encoder, text):
    ids = encoder.encode(text)
    assert ids == encoder.encode_simply(text)
    assert encoder.decode(ids) == text


@settings(max_examples=100, deadline=None)
@given(text=TRICKY, chunk=st.integers(1, 9))
def test_ids_do_not_depend_on_where_a_text_is_cut_into_chunks(text, chunk):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fast_bpe, "CHUNK", chunk)
        ids = trained().encode(text * 3)
    assert ids == trained().encode_simply(text * 3)


def test_every_character_is_split_as_the_definition_does():
    split = trained()._encode.__self__._split
    planes = [*range(0xD800), *range(0xE000, 0x20100), *range(0xE0000, 0xE0200)]
    characters = list(map(chr, planes))  # the rest of Unicode is Chinese or empty
    for start in range(0, len(characters), 5000):
        # Before, after and between a letter, a number, a space, a contraction.
        text = "".join(f"{c}a{c}1{c} {c}  {c}'re{c}" for c in characters[start:][:5000])
        assert split(text) == encoder_module.PATTERN.findall(text)


@st.composite
def merge_lists(draw):
    """Merges of a few letters in any order, including lists that training cannot produce."""
    tokens = ["a", "b", "c"]
    merges = []
    for _ in range(draw(st.integers(0, 12))):
        merges.append((draw(st.sampled_from(tokens)), draw(st.sampled_from(tokens))))
        tokens.append("".join(merges[-1]))
    return draw(st.permutations(merges)) if draw(st.booleans()) else merges


@settings(max_examples=300, deadline=None)
@given(merges=merge_lists(), words=st.lists(st.text("abc", max_size=30), max_size=5))
def test_any_vocabulary_is_encoded_by_the_definition(merges, words):
    encoder = Encoder(vocabulary(merges, seed=len(merges)), merges)
    # The tokens themselves are words, too: not every one of them comes out of its own letters.
    text = " ".join([*words, *("".join(merge) for merge in merges)])
    ids = encoder.encode(text)
    assert ids == encoder.encode_simply(text)
    assert encoder.decode(ids) == text


@settings(max_examples=200, deadline=None)
@given(merges=merge_lists(), word=st.lists(st.sampled_from([97, 98, 99]), min_size=2, max_size=60))
def test_heap_merges_as_the_list_does(merges, word):
    try:
        table = PieceTable(encoder_module.PATTERN, bytes_to_unicode(), vocabulary(merges), merges)
    except IrregularVocabulary:
        return
    by_list = fast_bpe._merge_in_list(list(word), table.merges)
    assert fast_bpe._merge_with_heap(list(word), table.merges) == by_list


def test_words_that_merging_does_not_join_to_the_longest_tokens():
    # The last: the original joins all "a b" at once; one by one, "ab a" would come in between.
    never_reached = [("b", "c"), ("a", "b"), ("ab", "c"), ("abc", "d")]
    for merges, text, tokens in [
        (never_reached, "abcd", ["a", "bc", "d"]),
        (never_reached, "abab", ["ab", "ab"]),
        ([("ab", "a"), ("a", "b")], "abab", ["ab", "ab"]),
    ]:
        encoder = Encoder(vocabulary(merges), merges)
        assert encoder.regular == (merges == never_reached)
        assert [encoder.decoder[i] for i in encoder.encode(text)] == tokens


@pytest.mark.parametrize("alphabet", [string.ascii_lowercase, "a", "の魔È莫中"])
def test_long_word_equals_the_definition_and_a_longer_one_round_trips(encoder, alphabet):
    word = "".join(random.Random(1).choices(alphabet, k=100_000))
    assert encoder.encode(word[:700]) == encoder.encode_simply(word[:700])
    assert encoder.decode(encoder.encode(word)) == word


def test_lone_surrogate_is_named_with_its_place_in_the_whole_text():
    for text, place in [("\ud800", 0), ("a b" * 9000 + "\udc80 c", 27000), (f"{END}abc\udfff", 16)]:
        with pytest.raises(UserError, match=rf"^character {place} of .*errors='replace'"):
            trained().encode(text, allow_special=True)
    assert trained().decode(trained().encode("still works")) == "still works"


@pytest.mark.parametrize("bad", [-1, 3, 511, 1.0, None, np.int64(-1)])
def test_id_that_is_not_in_the_vocabulary_is_named(bad):
    encoder = Encoder({char: 2 * byte for byte, char in bytes_to_unicode().items()}, [])
    good = encoder.encode("even é")
    assert encoder.decode(good) == "even é"
    with pytest.raises(UserError, match=r"not a token id: .* from 0 to 510") as error:
        encoder.decode([*good, bad, *good])
    assert repr(bad) in str(error.value)


def test_text_that_the_vocabulary_cannot_spell_is_refused():
    encoder = Encoder({"a": 0, "b": 1, "ab": 2}, [("a", "b")])
    assert encoder.encode("aabb") == [0, 2, 1]
    with pytest.raises(UserError, match=r"no token 'c'"):
        encoder.encode("abc")
    with pytest.raises(UserError, match=r"no token '<\|endoftext\|>'"):
        encoder.encode(f"ab{END}", allow_special=True)


@pytest.mark.parametrize("dtype", [np.int64, np.uint16])
def test_decode_takes_numpy_integers(dtype):
    ids = np.array(trained().encode("Hello, 中文"), dtype)
    assert trained().decode(ids) == trained().decode(tuple(ids)) == "Hello, 中文"
    with pytest.raises(UserError, match=r"0.5 is not a token id"):
        trained().decode(np.array([0.5]))


def test_decode_replaces_what_is_no_utf_8(encoder):
    half = [encoder.encoder[bytes_to_unicode()[byte]] for byte in "é".encode()]
    assert encoder.decode(half) == "é"
    assert encoder.decode([half[0], *encoder.encode("x"), half[1]]) == "\ufffdx\ufffd"


def test_end_of_text_is_plain_text_unless_allowed(encoder):
    text = f"one{END}{END}\n two"
    plain, end = encoder.encode(text), encoder.encoder[END]
    assert end not in plain
    special = encoder.encode(text, allow_special=True)
    assert special == [*encoder.encode("one"), end, end, *encoder.encode("\n two")]
    assert encoder.decode(plain) == encoder.decode(special) == text


@settings(max_examples=100, deadline=None)
@given(text=TRICKY, sizes=st.lists(st.integers(0, 3), max_size=40))
def test_stream_gives_whole_characters_and_all_of_the_text(text, sizes):
    ids = trained().encode(text)
    decode = trained().stream()
    shown = ""
    start = 0
    for size in [*sizes, len(ids)]:
        piece = decode(ids[start : start + size])
        start += size
        assert text.startswith(shown + piece)  # no half of a character, nothing early
        shown += piece
    assert shown == text
    assert decode([], final=True) == ""


@settings(max_examples=200, deadline=None)
@given(data=st.lists(st.integers(0, 255) | st.sampled_from("é中😀".encode()), max_size=30))
def test_stream_of_broken_bytes_adds_up_to_decode(data):
    ids = [trained().encoder[bytes_to_unicode()[byte]] for byte in data]
    decode = trained().stream()
    pieces = [decode([i]) for i in ids] + [decode([], final=True)]
    assert "".join(pieces) == trained().decode(ids)


def test_memory_of_words_is_bounded(monkeypatch):
    merges = train(SAMPLE, 150)
    ids = vocabulary(merges)
    table = PieceTable(encoder_module.PATTERN, bytes_to_unicode(), ids, merges, room=40)
    monkeypatch.setattr(encoder_module, "CACHE_SIZE", 40)
    simple = Encoder(ids, merges)
    largest = 0
    for i in range(300):
        text = f"word{i} 字{chr(0x4E00 + i)}魔 " + "x" * 100
        assert table.encode(text) == simple.encode_simply(text)
        assert len(simple.cache) <= 40
        largest = max(largest, len(table))
    assert 30 < largest <= 41
    assert max(map(len, table)) <= fast_bpe.LONGEST_KEPT
