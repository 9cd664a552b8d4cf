"""docs/results.html in a real Chromium: its sounds can be played and its pictures seen."""

import os
import tempfile
from pathlib import Path

import pytest
from browsing import chromium, is_installed

DOCS = Path(__file__).parents[2] / "docs"
LOADED = """
const [done] = arguments;
const sounds = [...document.querySelectorAll("audio")];
const ready = (e) => e.readyState > 0 || e.error
  ? Promise.resolve()
  : new Promise((ok) => ["loadedmetadata", "error"].forEach((name) => e.addEventListener(name, ok)));
Promise.all(sounds.map((e) => { e.load(); return ready(e); })).then(() => done({
  sounds: sounds.map((e) => [e.getAttribute("src"), e.error ? 0 : e.duration]),
  images: [...document.querySelectorAll("img")].map((e) => [e.getAttribute("src"), e.naturalWidth, e.alt]),
  width: document.documentElement.scrollWidth - window.innerWidth,
}));
"""


@pytest.mark.skipif(
    not is_installed() and not os.environ.get("CI"), reason="chromium or chromedriver is missing"
)
def test_players_play_and_pictures_show() -> None:
    with tempfile.TemporaryDirectory() as profile, chromium(Path(profile)) as driver:
        driver.set_script_timeout(60)
        driver.get((DOCS / "results.html").as_uri())
        found = driver.execute_async_script(LOADED)
    assert {Path(name).name for name, _ in found["sounds"]} == {
        path.name for path in (DOCS / "audio").iterdir()
    }
    for name, seconds in found["sounds"]:
        assert 1 < seconds < 20, name
    assert len(found["images"]) == 3
    for name, width, alt in found["images"]:
        assert width > 300, name
        assert alt, name
    assert found["width"] <= 0  # nothing overflows


def test_samples_are_small_enough_to_keep() -> None:
    assert sum(path.stat().st_size for path in (DOCS / "audio").iterdir()) < 3_000_000
