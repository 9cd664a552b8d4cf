"""Texts and options that nobody would write, and what has to hold for each.

Shared by the test, which tries 500, and by `benchmarks/hostile_text.py`, which tries as many as it is told.
"""

import math
import time
from typing import Any

import numpy as np
from hypothesis import strategies as st

from stepflow_tts import InputError, Speech, StepFlowTTS

SECONDS_A_CALL = 3.0
SECONDS_A_CHARACTER = 0.05

_WORDS = st.sampled_from(
    [
        *("the", "a", "I", "Dr.", "e.g.", "U.S.", "don't", "rock'n'roll", "$5.2M", "3:45pm", "1/2"),
        *("-7", "½", "10^9", "x=3", "http://a.b/c?d=e#f", "me@x.org", "**bold**", "`code`", "_it_"),
        *("[a](b)", "<b>", "</b>", "<break/>", "&amp;", "###", "1.", "-", "|", "||", "...", "?!"),
        *("—", "–", "“q”", "‘q’", "«", "»", "€", "100%", "5°C", "naïve", "café", "Ångström"),
        *(
            "привет",
            "你好",
            "مرحبا",
            "שלום",
            "👍🏽",
            "👩\u200d👩\u200d👧",
            "\u200b\u202e\ufeff",
            "\ud800",
        ),
        *("\t", "\n", "\n\n", "\r\n", "\x07"),
    ]
)
TEXTS = st.one_of(
    st.text(max_size=60),
    st.lists(_WORDS, max_size=25).map(" ".join),
    st.lists(_WORDS, max_size=12).map("".join),
    st.builds(
        lambda piece, count: piece * count,
        st.one_of(_WORDS, st.text(min_size=1, max_size=3)),
        st.integers(1, 80),
    ),
)
OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "num_steps": st.sampled_from([1, 2, 4, 1.0, 3, True]),
        "speed": st.one_of(st.floats(0.5, 2.0), st.sampled_from([0, -1.0, math.nan, math.inf])),
        "cfg_strength": st.sampled_from([0.0, 0.5, -1.0, math.nan]),
        "seed": st.one_of(st.integers(0, 2**63 - 1), st.sampled_from([None, -1, 2**64])),
        "language": st.sampled_from(["en", "en-GB", "de", ""]),
        "voice": st.sampled_from(["anna", "ben", "nobody", None]),
    },
)


def check(tts: StepFlowTTS, text: str, options: dict[str, Any]) -> Speech | InputError:
    """What the call gave: finite, audible speech or an error of bad input, in linear time."""
    outcome: Speech | InputError
    start = time.process_time()  # of work: a machine busy with others is no fault of the text
    try:
        outcome = tts.synthesize(text, **options)
    except InputError as error:
        outcome = error
    seconds = time.process_time() - start
    assert seconds < SECONDS_A_CALL + SECONDS_A_CHARACTER * len(text), f"{seconds:.1f} s"
    if isinstance(outcome, Speech):
        assert np.isfinite(outcome.samples).all()
        assert 0.001 < np.abs(outcome.samples).max() <= 1.0
    else:
        assert len(str(outcome)) > 20
    return outcome
