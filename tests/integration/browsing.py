"""The page in a real Chromium, as its user sees it, for the tests of it."""

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from serving import Running

FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *(
        "--use-fake-device-for-media-stream",
        "--use-fake-ui-for-media-stream",
    ),  # a beeping microphone
    "--disable-dev-shm-usage",  # which is small in containers
)
# Keeps what Web Audio is told to play and when, and which word was lit when the position was what.
SPY = """
window.played = [];
const start = AudioBufferSourceNode.prototype.start;
AudioBufferSourceNode.prototype.start = function (when, offset) {
  const { currentTime: now, sampleRate: rate } = this.context;
  const samples = Array.from(this.buffer.getChannelData(0), (x) => x * 32768);
  window.played.push({ now, when, offset, samples, rate });
  return start.call(this, when, offset);
};
window.lit = [];
document.addEventListener("DOMContentLoaded", () => {
  new MutationObserver(() => {
    const words = [...document.querySelectorAll("#words button")];
    const at = words.findIndex((word) => word.ariaCurrent === "true");
    if (at >= 0) window.lit.push([at, Number(document.querySelector("#wave").ariaValueNow)]);
  }).observe(document.querySelector("#words"), { subtree: true, attributeFilter: ["aria-current"] });
});
"""


class Page:
    """The page in a browser, as its user sees it."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver
        self.url = ""

    def open(self, server: Running) -> None:
        self.url = server.url
        self.driver.get(server.url)
        self.script("sessionStorage.clear(); localStorage.clear()")

    def script(self, code: str, *arguments: Any) -> Any:
        return self.driver.execute_script(code, *arguments)

    def cdp(self, command: str, **arguments: Any) -> Any:
        return self.driver.execute_cdp_cmd(command, arguments)

    def find(self, selector: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def click(self, selector: str) -> None:
        """As a mouse does, or else as a label does for what it hides."""
        self.find(selector).click()

    def type(self, text: str) -> None:
        self.find("#text").clear()
        self.find("#text").send_keys(text)

    def speak(self, text: str) -> None:
        """Type it and press the button."""
        self.type(text)
        self.click("#speak")
        self.wait(lambda: self.find("#speak").text == "Speak" and self.find("#rtf").text != "–")

    def set_speed(self, speed: float) -> None:
        """As if the slider was moved."""
        code = "const e = document.querySelector('#speed'); e.value = arguments[0];"
        self.script(code + "e.dispatchEvent(new Event('input'))", speed)

    def offsets(self) -> list[float]:
        """Where in its piece each playing began, in seconds."""
        offsets: list[float] = self.script("return window.played.map((piece) => piece.offset)")
        return offsets

    def wait(self, condition: Callable[[], object]) -> None:
        """Return as soon as it holds."""
        end = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < end, "it never came true"
            time.sleep(0.05)

    def wait_for_voices(self, *names: str) -> None:
        listed = "return [...document.querySelectorAll('.voice label b')].map((e) => e.textContent)"
        self.wait(lambda: self.script(listed) == list(names))

    @property
    def state(self) -> str | None:
        return self.find("#result").get_attribute("data-state")

    @property
    def error(self) -> str:
        self.wait(lambda: self.find("#notice").is_displayed())
        return self.find("#notice").text.splitlines()[0]

    @property
    def position(self) -> float:
        return float(self.find("#wave").get_attribute("aria-valuenow") or "nan")

    def size(self, width: int, height: int) -> None:
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.cdp("Emulation.setDeviceMetricsOverride", **metrics)

    def theme(self, name: str) -> None:
        """What the system prefers; and it wants no transitions, in which colors are between two."""
        wishes = {"prefers-color-scheme": name, "prefers-reduced-motion": "reduce"}
        features = [{"name": wish, "value": value} for wish, value in wishes.items()]
        self.cdp("Emulation.setEmulatedMedia", features=features)

    def requests(self) -> list[str]:
        """The addresses that were asked for since the last call."""
        messages = [json.loads(e["message"])["message"] for e in self.driver.get_log("performance")]
        sent = [m for m in messages if m["method"] == "Network.requestWillBeSent"]
        return [message["params"]["request"]["url"] for message in sent]


def is_installed() -> bool:
    """Whether there is a Chromium to drive."""
    return bool(shutil.which("chromium") and shutil.which("chromedriver"))


@contextmanager
def chromium(folder: Path) -> Iterator[webdriver.Chrome]:
    """A browser that keeps its files in a new folder."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for flag in FLAGS:
        options.add_argument(flag)
    options.add_argument(f"--user-data-dir={folder}")
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
    try:
        driver.get("about:blank")
        driver.get_log("performance")  # of the browser's own first page
        driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": SPY})
        yield driver
    finally:
        driver.quit()
