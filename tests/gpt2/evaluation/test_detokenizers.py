"""Detokenizers: natural text, from which tokenizing restores the original."""

import pytest
from conftest import shared
from hypothesis import given
from hypothesis import strategies as st

from gpt2.evaluation.detokenizers import BOOK, ONE_BILLION_WORDS, PTB, WIKITEXT, natural_lambada

ALL = {"wikitext": WIKITEXT, "ptb": PTB, "book": BOOK, "1bw": ONE_BILLION_WORDS}
# What each format is made of, next to plain words.
MARKS = {
    "wikitext": "@-@ @,@ @.@ , . ; : ! ? ( ) [ ] \" ' 's 't 're ... -- / $ £ % "
    "<unk> = U.S. St. J. &",
    "ptb": "<unk> N n't 's 'm 're 've 'll 'd ' $ # & mr. u.s. c$ well-known N-year 1\\/2",
    "book": "`` '' ` ' , . ; : ! ? -LRB- -RRB- n't 's 'm 're 've 'll 'd 'em "
    "... -- Mr. U.S. o'clock $ 1,500",
    "1bw": ", . ; : ! ? ( ) \" ' 's 't 're ... -- - / $ % well-known U.S. Mr. 1,500 5.5 3:30 &",
}
PLAIN = ["a", "I", "it", "Ludwig", "Übung", "wo", "7", "1902", "x2", "don"]


def format_lines(name):
    tokens = st.sampled_from([*MARKS[name].split(), *PLAIN])
    frame = ALL[name].frame
    return st.lists(tokens, min_size=1).map(lambda line: f"{frame}{' '.join(line)}{frame}")


@given(st.data(), st.sampled_from(sorted(ALL)), st.sampled_from(["", "\n"]))
def test_tokenizing_gives_the_original_back(data, name, end):
    line = data.draw(format_lines(name)) + end
    assert ALL[name].tokenize(ALL[name].detokenize(line)) == line


@given(st.sampled_from(sorted(ALL)), st.lists(st.text("ab.,'\"-`$(1N@", min_size=1, max_size=5)))
def test_a_line_comes_back_if_its_tokens_do(name, tokens):
    pair = ALL[name]
    faithful = [token for token in tokens if pair.split(token) == [token]]
    line = f"{pair.frame}{' '.join(faithful)}{pair.frame}" if faithful else pair.blank
    assert pair.tokenize(pair.detokenize(line)) == line


@given(st.sampled_from(sorted(ALL)), st.text("ab .,'\"-`$(1N@\n"))
def test_nothing_but_spaces_and_spelling_is_lost(name, text):
    def bare(line):
        for token, natural in ALL[name].spelling.items():
            line = line.replace(token, natural)
        return line.replace(" ", "").replace("''", '"')

    assert bare(ALL[name].detokenize(text)) == bare(text)


@pytest.mark.parametrize(
    ("name", "line", "natural"),
    [
        ("wikitext", " = = Early life = = \n", "= = Early life = =\n"),
        ("wikitext", " \n", "\n"),
        (
            "wikitext",
            " It 's a \" well @-@ known \" 1 @,@ 200 @-@ ton ship , isn 't it ? ",
            "It's a \"well-known\" 1,200-ton ship, isn't it?",
        ),
        (
            "wikitext",
            " St. Ives ( pop . 3 @.@ 5 % ) and / or the players ' U.S. tour . ",
            "St. Ives (pop. 3.5%) and/or the players' U.S. tour.",
        ),
        (
            "ptb",
            " mr. roe 's <unk> did n't cost $ N or the buyers ' c$ N \n",
            "mr. roe's <unk> didn't cost $N or the buyers' c$ N\n",
        ),
        (
            "book",
            "`` I ca n't -LRB- not yet -RRB- , '' said Mr. Fox ; `` it 's one o'clock . ''",
            '"I can\'t (not yet)," said Mr. Fox; "it\'s one o\'clock."',
        ),
        ("book", "` Let 'em go , ' she said -- no ...", "'Let 'em go,' she said -- no..."),
        (
            "1bw",
            '" It \'s early , " he said ( on a $ 5.5 million , well-known , 3 / 4 basis ) .',
            '"It\'s early," he said (on a $5.5 million, well-known, 3/4 basis).',
        ),
    ],
)
def test_text_looks_natural_and_comes_back(name, line, natural):
    assert ALL[name].detokenize(line) == natural
    assert ALL[name].tokenize(natural) == line


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("wikitext", [" a  b ", "a b", " a well-known 3.5 ", " the end. ", " Vol.2/3 "]),
        ("ptb", [" it's ", " $5 ", " don't "]),
        ("book", ["it's", "don't", "the end, he said", '" a', "( a"]),
        ("1bw", ["it's", "(a )", "the end, he said"]),
    ],
)
def test_what_the_list_names_does_not_come_back(name, lines):
    for line in lines:
        assert ALL[name].tokenize(ALL[name].detokenize(line)) != line


@pytest.mark.parametrize("name", sorted(ALL))
def test_every_line_of_a_tokenised_corpus_comes_back(name):
    text = shared("corpus/web_english.txt").read_text(encoding="utf-8")[:100_000]
    tokenised = [ALL[name].tokenize(line) for line in text.split("\n")]
    assert [ALL[name].tokenize(ALL[name].detokenize(line)) for line in tokenised] == tokenised


def test_lambada_passages_get_straight_quotes_and_begin_a_line():
    assert natural_lambada(" “Why?” she asked\n") == '\n"Why?" she asked'
