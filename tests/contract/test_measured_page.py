"""docs/measured.md says what the reports in benchmarks/results say."""

import runpy
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_page_is_that_of_the_reports() -> None:
    script = runpy.run_path(str(ROOT / "benchmarks" / "measured_page.py"))
    assert script["PAGE"].read_text(encoding="utf-8") == script["page"]()
