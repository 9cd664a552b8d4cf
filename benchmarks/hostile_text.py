"""Tries many hostile texts on the bundled checkpoint: python benchmarks/hostile_text.py 10000

Tells how many became speech and how many were refused; stops at the first that did neither, and shows it.
"""

import sys
import time
from collections import Counter
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from measuring import options, parse, record

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "integration"))
from hostile import OPTIONS, TEXTS, check

from stepflow_tts import StepFlowTTS


def main(model: str | None, count: int) -> None:
    """Try `count` examples and write down what came of them."""
    tts = StepFlowTTS.from_pretrained(model, device="cpu")
    start = time.monotonic()
    outcomes: Counter[str] = Counter()

    @settings(max_examples=count, deadline=None, suppress_health_check=list(HealthCheck))
    @given(text=TEXTS, chosen=st.one_of(st.just({}), OPTIONS))
    def run(text: str, chosen: dict[str, object]) -> None:
        outcomes[type(check(tts, text, chosen)).__name__] += 1

    run()
    seconds = round(time.monotonic() - start)
    record("hostile_text", {"texts": count, "outcomes": dict(outcomes), "seconds": seconds})


if __name__ == "__main__":
    parser = options(__doc__)
    parser.add_argument("count", type=int)
    arguments = parse(parser)
    main(arguments.model, arguments.count)
