"""Tries many hostile texts on the bundled checkpoint: python benchmarks/hostile_text.py 10000

Prints how many became speech and how many were refused; stops at the first that did neither, and shows it.
"""

import sys
from collections import Counter
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "integration"))
from hostile import OPTIONS, TEXTS, check

from stepflow_tts import StepFlowTTS


def main(count: int) -> None:
    """Try `count` examples."""
    tts = StepFlowTTS.from_pretrained(device="cpu")
    outcomes: Counter[str] = Counter()

    @settings(max_examples=count, deadline=None, suppress_health_check=list(HealthCheck))
    @given(text=TEXTS, options=st.one_of(st.just({}), OPTIONS))
    def run(text: str, options: dict[str, object]) -> None:
        outcomes[type(check(tts, text, options)).__name__] += 1

    run()
    print(dict(outcomes))


if __name__ == "__main__":
    main(int(sys.argv[1]))
