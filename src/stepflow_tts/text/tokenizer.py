"""From phonemes to token ids: one character is one symbol."""

import logging
import unicodedata
from collections import Counter

from stepflow_tts.errors import CheckpointFormatError, TextError

logger = logging.getLogger(__name__)

BOS = "<bos>"
EOS = "<eos>"

_PUNCTUATION = " ;:,.!?¡¿—…\"“”()-'"
VOWELS = "aeiouyæøœɐɑɒɔəɘɚɛɜɝɞɤɨɪɯɵʉʊʌʏᵻ"
_CONSONANTS = "bcdfhjklmnpqrstvwxzçðħŋβɓɕɖɗɟɡɣɦɫɬɭɱɲɳɴɸɹɻɽɾʀʁʂʃʈʋʍʎʐʑʒʔʝθχ"
_MARKS = "ˈˌːˑʰʲʷ\u0329\u032a\u0303"  # the last three combine: syllabic, dental, nasal

DEFAULT_SYMBOLS: tuple[str, ...] = (
    BOS,
    EOS,
    *_PUNCTUATION,
    *VOWELS,
    *_CONSONANTS,
    *_MARKS,
)
"""What espeak-ng 1.52 writes for en-us and en-gb-x-rp, and the IPA of the foreign words it knows.

The order is part of every checkpoint, which stores its own copy: add at the end only.
"""


def is_phone(symbol: str) -> bool:
    """Whether a symbol is a sound of its own, or begin or end: no mark, stress or length."""
    return len(symbol) > 1 or unicodedata.category(symbol) in ("Ll", "Lo", "Lu")


def is_silent(symbol: str) -> bool:
    """Whether a symbol is punctuation or a space."""
    return len(symbol) == 1 and unicodedata.category(symbol)[0] in "PSZ"


class Tokenizer:
    """Token ids of phoneme strings, for the symbols that a checkpoint was trained with."""

    def __init__(self, symbols: tuple[str, ...] = DEFAULT_SYMBOLS) -> None:
        """Keep the symbols; a symbol's id is its place in them.

        Args:
            symbols: "<bos>", "<eos>", then single characters, none of them twice.

        Raises:
            CheckpointFormatError: the symbols are not of that form.
        """
        if symbols[:2] != (BOS, EOS):
            raise CheckpointFormatError(
                f"A checkpoint's symbols start with {BOS!r}, {EOS!r}; "
                f"these start with {list(symbols[:2])}."
            )
        wrong = [symbol for symbol in symbols[2:] if len(symbol) != 1]
        if wrong:
            raise CheckpointFormatError(
                f"Each symbol after {BOS!r}, {EOS!r} is one character; {wrong[0]!r} is not."
            )
        if len(set(symbols)) != len(symbols):
            twice = [symbol for symbol, count in Counter(symbols).items() if count > 1]
            raise CheckpointFormatError(f"The symbols hold {twice[0]!r} more than once.")
        self.symbols = symbols
        self._ids = {symbol: index for index, symbol in enumerate(symbols)}

    def __len__(self) -> int:
        """How many symbols there are."""
        return len(self.symbols)

    def unknown(self, phonemes: str) -> Counter[str]:
        """How often each character occurs that has no id."""
        return Counter(symbol for symbol in phonemes if symbol not in self._ids)

    def encode(self, phonemes: str) -> list[int]:
        """Token ids of `phonemes` between begin (0) and end (1); unknown characters are dropped.

        A drop is logged as one warning that counts every dropped character.
        """
        dropped = self.unknown(phonemes)
        if dropped:
            logger.warning(
                "Dropped phonemes that the checkpoint has no symbol for: %s", _show(dropped)
            )
        ids = self._ids
        return [ids[BOS], *(ids[symbol] for symbol in phonemes if symbol in ids), ids[EOS]]

    def encode_strict(self, phonemes: str) -> list[int]:
        """Token ids of `phonemes` between begin (0) and end (1), nothing dropped.

        Raises:
            TextError: a character has no id.
        """
        dropped = self.unknown(phonemes)
        if dropped:
            raise TextError(
                f"The phonemes {phonemes[:80]!r} hold characters without a symbol: "
                f"{_show(dropped)}. Known: {''.join(self.symbols[2:])}"
            )
        return self.encode(phonemes)

    def decode(self, token_ids: list[int]) -> str:
        """The phonemes of `token_ids`, without begin and end."""
        return "".join(self.symbols[index] for index in token_ids if index > 1)


def _show(counts: Counter[str]) -> str:
    """Characters with code points and counts, the most frequent first."""
    return ", ".join(f"{c!r} (U+{ord(c):04X}) x{n}" for c, n in counts.most_common())
