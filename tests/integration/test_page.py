"""The page at /, in a real Chromium."""

import itertools
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from axe_core_python.selenium import Axe
from browsing import Page, chromium, is_installed
from selenium import webdriver
from selenium.webdriver.common.keys import Keys
from serving import ANNA, TOKENS, Running, running, wav

from stepflow_tts import StepFlowTTS

TEXT = "Words light up here.\nThen one more click plays again."  # two pieces
OVERFLOWING = """
return [...document.body.querySelectorAll("*")].filter((element) => {
  const { left, right, width } = element.getBoundingClientRect();
  return width > 0 && !element.closest(".unseen") && (right > innerWidth + 0.5 || left < -0.5);
}).map((element) => element.outerHTML.slice(0, 80));
"""


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    if not is_installed():
        reason = "chromium or chromedriver is missing: apt-get install chromium chromium-driver"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    with chromium(tmp_path_factory.mktemp("chromium")) as driver:
        yield driver


@pytest.fixture
def page(driver: webdriver.Chrome, server: Running) -> Iterator[Page]:
    """The page, freshly opened; whatever a test does, no request leaves the server it is from."""
    for voice in server.client.get("/v1/audio/voices").json()["voices"][2:]:
        server.client.delete(f"/v1/audio/voices/{voice['id']}")  # left by a test that failed
    page = Page(driver)
    page.size(1280, 900)
    page.theme("light")
    page.open(server)
    page.wait_for_voices("Anna", "Ben")
    yield page
    asked = page.requests()
    assert f"{page.url}/static/main.js" in asked
    own = (f"{server.url}/", f"{page.url}/", "blob:", "data:")
    assert [url for url in asked if not url.startswith(own)] == []
    # Refusals by the content security policy and uncaught errors are here too.
    told = [entry["message"] for entry in driver.get_log("browser") if entry["level"] == "SEVERE"]
    assert [message for message in told if "Failed to load resource" not in message] == []


def test_files_have_their_types_and_a_policy_without_inline_code(server: Running) -> None:
    types = {"": "text/html", "static/main.js": "text/javascript", "static/style.css": "text/css"}
    for path, kind in types.items():
        answer = server.client.get(f"/{path}")
        assert answer.headers["content-type"].partition(";")[0] == kind
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy


def test_words_light_up_as_they_are_spoken(page: Page, tts: StepFlowTTS) -> None:
    speech = tts.synthesize(TEXT, "ben", speed=1.5)
    page.set_speed(1.5)
    page.script("document.querySelector('#voices input[value=ben]').click()")
    page.type(TEXT)
    page.find("#text").send_keys(Keys.CONTROL, Keys.ENTER)
    page.wait(lambda: page.state == "ended")
    shown = [button.text for button in page.all("#words button")]
    assert shown == [word.text for word in speech.words] == TEXT.split()
    assert page.script("return document.querySelector('#words').textContent") == TEXT
    seen = page.script("return window.lit")
    lit = [at for at, _ in seen]
    assert lit == sorted(set(lit))
    assert len(lit) > len(shown) / 2
    # Positions are rounded to 0.1 s; a frame that comes late on a busy machine is forgiven.
    words = [speech.words[at] for at in lit]
    late = [position - word.start_seconds for word, (_, position) in zip(words, seen, strict=True)]
    assert min(late) > -0.051
    assert np.median(late) < 0.1
    assert page.find("#length").text == f"0:{speech.duration_seconds:04.1f}"


def test_pieces_are_played_without_a_gap(page: Page, tts: StepFlowTTS) -> None:
    page.speak(TEXT)
    pieces = page.script("return window.played")
    assert len(pieces) == len(list(tts.stream(TEXT, "anna"))) > 1
    assert {piece["rate"] for piece in pieces} == {24_000}
    for one, two in itertools.pairwise(pieces):
        end = one["when"] + len(one["samples"]) / 24_000
        # Right after it, or else, where the server was too slow for that, at once.
        is_next = two["when"] == pytest.approx(end, abs=1 / 24_000)
        assert is_next or end < two["when"] < two["now"] + 0.1
    samples = np.concatenate([piece["samples"] for piece in pieces])
    expected = np.rint(tts.synthesize(TEXT, "anna").samples.clip(-1, 1) * 32_767)
    np.testing.assert_array_equal(samples, expected)


def test_words_places_and_keys_seek(page: Page, tts: StepFlowTTS) -> None:
    page.set_speed(0.5)  # so that it lasts longer than the test
    first, _ = tts.stream(TEXT, "anna", speed=0.5)
    starts = [word.start_seconds for word in tts.synthesize(TEXT, "anna", speed=0.5).words]
    page.speak(TEXT)
    page.click("#play")
    assert page.state == "paused"
    at = page.position
    time.sleep(0.2)
    assert page.position == at
    page.click("#words button:nth-of-type(6)")
    assert page.offsets()[-1] == pytest.approx(starts[5] - first.duration_seconds, abs=1e-3)
    assert page.state == "playing"
    assert page.position >= round(starts[5], 1)
    page.click("#play")
    page.script("document.querySelector('#words button:nth-of-type(2)').focus()")
    page.driver.switch_to.active_element.send_keys(Keys.ARROW_RIGHT)
    page.driver.switch_to.active_element.send_keys(Keys.ENTER)
    assert page.offsets()[-2:] == [pytest.approx(starts[2], abs=1e-3), 0]
    page.find("#wave").send_keys(Keys.HOME)
    assert page.offsets()[-2:] == [0, 0]
    page.find("#wave").click()  # in its middle
    middle = float(page.find("#wave").get_attribute("aria-valuemax") or "nan") / 2
    assert page.offsets()[-1] == pytest.approx(middle - first.duration_seconds, abs=0.1)
    page.find("#wave").send_keys(Keys.END)
    page.wait(lambda: page.state == "ended")
    page.find("body").send_keys(" ")
    page.wait(lambda: page.state == "playing")


def test_the_waveform_is_drawn(page: Page) -> None:
    page.speak(TEXT)
    page.wait(lambda: page.position > 0.5)
    page.click("#play")
    drawn = """
        const canvas = document.querySelector("#wave");
        const { width, height } = canvas;
        const alpha = canvas.getContext("2d").getImageData(0, 0, width, height).data
            .filter((_, k) => k % 4 === 3);
        return [alpha.slice(0, width * 4).some((a) => a > 0), alpha.reduce((a, b) => Math.max(a, b))];
    """
    reaches_the_top, darkest = page.script(drawn)
    assert reaches_the_top  # where the loudest bar does
    assert darkest == 255  # what was heard; the rest is paler


def test_steps_and_speed_are_compared(page: Page, tts: StepFlowTTS) -> None:
    for steps in ("1", "4"):
        page.script(f"document.querySelector('#steps input[value=\"{steps}\"]').click()")
        page.speak(TEXT)
        assert 0 < float(page.find("#rtf").text) < 10
        assert float(page.find("#first").text.removesuffix(" s")) < 5
    page.set_speed(2)
    assert page.find("#speed-value").text == "2.00×"
    page.speak(TEXT)
    rows = [row.text.split() for row in page.all("#takes tr")]
    assert [row[:3] for row in rows] == [
        ["Anna", "4", "2.00×"],
        ["Anna", "4", "1.00×"],
        ["Anna", "1", "1.00×"],
    ]
    fast, four, one = (float(row[3]) for row in rows)
    assert fast < 0.7 * four
    assert four == one == round(tts.synthesize(TEXT, "anna").duration_seconds, 1)
    page.click("#takes tr:nth-child(3) button")
    assert page.find("#takes tr[aria-current]").text.split()[1] == "1"
    assert page.find("#length").text == f"0:{one:04.1f}"


def test_downloads(page: Page, tts: StepFlowTTS, tmp_path: Path) -> None:
    page.cdp("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    page.speak(TEXT)
    speech = tts.synthesize(TEXT, "anna")
    paths = {kind: tmp_path / f"words-light-up-here-then.{kind}" for kind in ("wav", "mp3", "srt")}
    for kind, path in paths.items():
        page.click(f"[data-format={kind}]")
        page.wait(path.exists)
    samples, sample_rate = soundfile.read(paths["wav"], dtype="int16")
    assert sample_rate == 24_000
    np.testing.assert_array_equal(samples, np.rint(speech.samples.clip(-1, 1) * 32_767))
    assert soundfile.info(paths["mp3"]).duration == pytest.approx(speech.duration_seconds, abs=0.15)
    assert paths["srt"].read_text("utf-8") == speech.to_srt()


def test_a_clip_becomes_a_voice_with_consent(page: Page, tmp_path: Path, voice_audio: Any) -> None:
    clip = tmp_path / "Carl.wav"
    clip.write_bytes(wav(voice_audio(150.0)))
    page.click(".voice.add")
    page.click("#add")
    assert "choose a file" in page.find("#problem").text
    noise = tmp_path / "notes.txt"
    noise.write_text("no sound")
    page.find("#file").send_keys(str(noise))
    page.wait(lambda: "notes.txt cannot be read" in page.find("#problem").text)
    page.find("#file").send_keys(str(clip))
    page.wait(lambda: page.find("#clip-length").text == "2.0 s")
    page.click("#add")
    assert "permission" in page.find("#problem").text
    page.click("#consent")
    page.click("#add")
    page.wait_for_voices("Anna", "Ben", "Carl")
    assert page.find(".voice:has(input:checked)").text.startswith("C\nCarl")
    page.speak("Hello.")
    assert page.find("#takes tr").text.split()[0] == "Carl"
    page.click("[aria-label='Delete the voice Carl']")
    page.wait_for_voices("Anna", "Ben")


def test_a_recording_becomes_a_voice(page: Page) -> None:
    page.click(".voice.add")
    page.click("#record")
    page.wait(lambda: page.find("#record-label").text >= "Stop (2.5 s)")
    page.click("#record")
    assert page.find("#record-label").text == "Record"
    assert float(page.find("#clip-length").text.removesuffix(" s")) > 2.4
    page.click("#consent")
    page.click("#add")
    page.wait_for_voices("Anna", "Ben", "My voice")
    page.click("[aria-label='Delete the voice My voice']")
    page.wait_for_voices("Anna", "Ben")


def test_errors_are_shown_in_words(page: Page) -> None:
    page.type("Привет")
    page.click("#speak")
    assert "Cyrillic" in page.error
    assert page.state == "empty"
    page.click("#notice button")
    assert not page.find("#notice").is_displayed()
    page.type(" ")
    page.click("#speak")
    assert page.error == "Type what to say first."
    page.cdp("Network.enable")
    page.cdp("Network.setBlockedURLs", urls=["*timestamps*"])
    page.type("Hello.")
    page.click("#speak")
    page.wait(lambda: page.error == "The server cannot be reached. Is it still running?")
    page.cdp("Network.setBlockedURLs", urls=[])


def test_a_token_is_asked_for(page: Page, tts: StepFlowTTS) -> None:
    with running(tts, tokens=TOKENS) as server:
        page.open(server)
        page.wait(lambda: page.find("#token").is_displayed())
        assert not page.find("#notice").is_displayed()
        page.find("#token-field").send_keys("wrong", Keys.ENTER)
        assert page.error == "The server does not know this token."
        page.find("#token-field").clear()
        page.find("#token-field").send_keys(ANNA, Keys.ENTER)
        page.wait_for_voices("Anna", "Ben")
        assert not page.find("#token").is_displayed()
        page.speak("Hello.")


def test_nothing_overflows(page: Page) -> None:
    page.speak(f"{TEXT} {'Long' * 20}")
    for open_it in ("", "document.querySelector('.voice.add').click()"):
        page.script(open_it)
        for width in (320, 390, 768, 1280):
            page.size(width, 800)
            assert page.script(OVERFLOWING) == []
            assert page.script("return document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_no_violation(page: Page, theme: str) -> None:
    page.theme(theme)
    background = page.script("return getComputedStyle(document.documentElement).backgroundColor")
    assert background == {"light": "rgb(247, 244, 239)", "dark": "rgb(22, 20, 18)"}[theme]
    page.speak(TEXT)
    page.script("document.querySelector('#notice').hidden = false")
    for open_it in ("", "document.querySelector('.voice.add').click()"):
        page.script(open_it)
        found = Axe().run(page.driver)
        told = {f"{v['id']}: {v['nodes'][0]['html']}" for v in found["violations"]}
        assert told == set()
        assert len(found["passes"]) > 20


def test_the_theme_can_be_chosen_and_is_kept(page: Page) -> None:
    background = "return getComputedStyle(document.documentElement).backgroundColor"
    light = page.script(background)
    page.click("#theme")
    dark = page.script(background)
    assert dark != light
    page.driver.refresh()
    assert page.script(background) == dark
    assert page.find("#theme").get_attribute("aria-pressed") == "true"
