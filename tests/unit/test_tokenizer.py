"""Token ids: the order of the symbols, begin and end, and what happens to the unknown."""

import logging
import unicodedata

import pytest

from stepflow_tts.errors import CheckpointFormatError, TextError
from stepflow_tts.text.tokenizer import DEFAULT_SYMBOLS, Tokenizer

TINY = ("<bos>", "<eos>", " ", "a", "b", "\u0329")


def test_ids_are_places_between_begin_and_end() -> None:
    assert Tokenizer(TINY).encode("ba b\u0329") == [0, 4, 3, 2, 4, 5, 1]
    assert Tokenizer(TINY).encode("") == [0, 1]


def test_decode_gives_back_what_was_encoded() -> None:
    phonemes = "ðə kwˈɪk bɹˈaʊn fˈɑːks, ɡˈɑːʔn̩! “bɔ̃ʒˈuɹ” — lˈɒx…"
    tokenizer = Tokenizer()
    assert tokenizer.decode(tokenizer.encode_strict(phonemes)) == phonemes


def test_default_symbols_are_stable() -> None:
    # Checkpoints store their own copy, but prepared data and the bundled weights share these ids.
    places = {symbol: DEFAULT_SYMBOLS.index(symbol) for symbol in ("<bos>", "<eos>", " ", "a", "ˈ")}
    assert places == {"<bos>": 0, "<eos>": 1, " ": 2, "a": 20, "ˈ": 109}
    assert len(set(DEFAULT_SYMBOLS)) == len(DEFAULT_SYMBOLS) == 119


def test_default_symbols_are_single_composed_characters() -> None:
    for symbol in DEFAULT_SYMBOLS[2:]:
        assert len(symbol) == 1
        assert unicodedata.category(symbol)[0] in "LMPSZ"


@pytest.mark.parametrize(
    "symbol", '\u0329\u0303\u0361ʲɬxçʔɐᵻɚɜːˈˌ;:,.!?¡¿—…"“”()- əɹɾθðŋʃʒæɑɒɔɪʊʌɛɡ'
)
def test_default_symbols_hold_what_espeak_writes(symbol: str) -> None:
    assert (symbol in DEFAULT_SYMBOLS) is (
        symbol != "\u0361"
    )  # no tie bars: one character a symbol


def test_unknown_symbols_are_dropped_with_one_counted_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING, logger="stepflow_tts"):
        ids = Tokenizer(TINY).encode("aщbщ7")
    assert ids == [0, 3, 4, 1]
    assert len(caplog.records) == 1
    assert "'щ' (U+0449) x2, '7' (U+0037) x1" in caplog.records[0].getMessage()


def test_known_symbols_log_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="stepflow_tts"):
        Tokenizer(TINY).encode("ab")
    assert caplog.records == []


def test_strict_refuses_unknown_symbols_by_name() -> None:
    with pytest.raises(TextError, match=r"U\+0449.*x2"):
        Tokenizer(TINY).encode_strict("aщbщ")
    assert Tokenizer(TINY).encode_strict("ab") == [0, 3, 4, 1]


@pytest.mark.parametrize(
    ("symbols", "message"),
    [
        (("<eos>", "<bos>", "a"), "start with"),
        ((), "start with"),
        (("<bos>", "<eos>", "ab"), "'ab'"),
        (("<bos>", "<eos>", "a", ""), "''"),
        (("<bos>", "<eos>", "a", "b", "a"), "'a' more than once"),
    ],
)
def test_malformed_symbols_are_refused(symbols: tuple[str, ...], message: str) -> None:
    with pytest.raises(CheckpointFormatError, match=message):
        Tokenizer(symbols)
