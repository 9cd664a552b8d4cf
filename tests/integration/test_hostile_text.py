"""Whatever is asked for ends in speech or in an error of ours."""

from typing import Any

import pytest
from hostile import OPTIONS, TEXTS, check
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stepflow_tts import Speech, StepFlowTTS


@settings(
    max_examples=500,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(text=TEXTS, options=st.one_of(st.just({}), OPTIONS))
def test_any_text_with_any_options(tts: StepFlowTTS, text: str, options: dict[str, Any]) -> None:
    check(tts, text, options)


@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        ("a" * 50_000, True),
        ("(" * 500 + "deep" + ")" * 500, True),
        ("\u202eevil\u202c right to left", True),
        ("zero\u200bwidth\ufeff joiner\u200d", True),
        ("lone \ud800 surrogate", True),
        ("1" * 5_000, True),
        ("👍" * 1_000, False),
        ("مرحبا بالعالم", False),
        ("-" * 10_000, False),
    ],
)
def test_extremes(tts: StepFlowTTS, text: str, spoken: bool) -> None:
    assert isinstance(check(tts, text, {}), Speech) is spoken
