"""A real headless Chromium, and the live page in it as a person meets it."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psutil
from rexec.v1 import execution_service_pb2 as api
from selenium.common.exceptions import WebDriverException
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

from tests.servers import Server
from tests.waiting import eventually

CHROMIUM = shutil.which("chromium")
CHROMEDRIVER = shutil.which("chromedriver")

# Names that mean this machine in the browser: a page elsewhere, and a name that was rebound to us.
ELSEWHERE = "elsewhere.test"
REBOUND = "rebound.test"
_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
    f"--host-resolver-rules=MAP {ELSEWHERE} 127.0.0.1, MAP {REBOUND} 127.0.0.1",
)  # fmt: skip
WIDE, PHONE = (1600, 1000), (390, 844)


class Browser:
    """Chromium under chromedriver, both Debian's, so that they are of one version."""

    def __init__(self, user_data: Path, *flags: str) -> None:
        options = ChromeOptions()
        options.binary_location = CHROMIUM or ""
        for flag in (*_FLAGS, *flags, f"--user-data-dir={user_data}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        options.add_experimental_option("prefs", {"download.default_directory": str(user_data / "downloads")})
        self.downloads = user_data / "downloads"
        self._service = Service(CHROMEDRIVER)
        self.driver = Chrome(options=options, service=self._service)
        self.driver.set_script_timeout(30)

    @property
    def processes(self) -> set[psutil.Process]:
        """Everything that belongs to the browser now."""
        root = psutil.Process(self._service.process.pid)
        return {root, *root.children(recursive=True)}

    def console(self) -> list[str]:
        """What the console said since the last look: errors, refusals of the policy, failed loads."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def look(self, size: tuple[int, int] = WIDE, scheme: str = "light") -> None:
        """A screen of this size, and a system that is light or dark."""
        width, height = size
        screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": size == PHONE}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
        media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)

    def network(self, there: bool) -> None:
        """Takes the network away from all pages, or gives it back."""
        self.driver.execute_cdp_cmd("Network.enable", {})
        speed = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
        self.driver.execute_cdp_cmd("Network.emulateNetworkConditions", {"offline": not there, **speed})

    def thread_seconds(self) -> float:
        """Processor time that the main thread of the page has taken."""
        self.driver.execute_cdp_cmd("Performance.enable", {})
        metrics = self.driver.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
        return float(next(metric["value"] for metric in metrics if metric["name"] == "ThreadTime"))

    def close(self) -> None:
        processes = self.processes
        self.driver.quit()
        _, alive = psutil.wait_procs(processes, timeout=30)
        for process in alive:
            with suppress(psutil.NoSuchProcess):
                process.kill()


class Page:
    """The live page: what can be seen on it and done with it."""

    def __init__(self, browser: Browser, server: Server, caller: str = "") -> None:
        """`caller`: whom it acts as; empty: whom the server takes it for, which is `dev`."""
        self.browser = browser
        self.driver = browser.driver
        self.server = server
        self.caller = caller

    def open(self, exec_id: str = "") -> Page:
        """Loads it anew: the list, or one execution."""
        self.driver.get("about:blank")
        place = f"#/{quote(self.caller or 'dev')}/{quote(exec_id)}" if exec_id else ""
        self.driver.get(f"{self.server.gateway}/{place}")
        return self

    def exec(self, request: api.ExecRequest, wait: float = 0) -> None:
        """Starts a command as the page's caller, but not through the page; waits so many seconds for its end."""
        request.wait.FromNanoseconds(int(wait * 1e9))
        metadata = (("authorization", f"Bearer {self.caller}"),) if self.caller else ()
        self.server.stub.Exec(request, metadata=metadata)

    def find(self, selector: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def text(self, selector: str) -> str:
        return self.find(selector).text

    def sees(self, selector: str) -> bool:
        """True when there is such an element and it can be seen."""
        with suppress(WebDriverException):
            return self.find(selector).is_displayed()
        return False

    def click(self, selector: str) -> None:
        eventually(lambda: self.sees(selector))
        self.find(selector).click()

    def type(self, selector: str, text: str) -> None:
        """Into a field, instead of what stood there."""
        eventually(lambda: self.sees(selector))
        self.find(selector).clear()
        self.find(selector).send_keys(text)

    def press(self, *keys: str) -> None:
        """Keys for the page, to whatever has the focus."""
        self.driver.switch_to.active_element.send_keys(*keys)

    def last_row_is(self, text: str) -> bool:
        rows = self.rows
        return bool(rows) and rows[-1] == text

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def start(self, line: str) -> str:
        """Starts a shell line through the form; its id."""
        before = self.exec_id
        self.click("#start")
        self.type("[name=shell]", line)
        self.find("[name=shell]").send_keys(Keys.ENTER)
        return eventually(lambda: self.exec_id != before and self.exec_id)

    @property
    def exec_id(self) -> str:
        """Of the execution that is open."""
        return str(self.run("return location.hash")).rpartition("/")[2]

    @property
    def state(self) -> str:
        return self.text("#state")

    @property
    def rows(self) -> Sequence[str]:
        """The lines of the log that are drawn, as text."""
        return self.run("return [...document.querySelectorAll('.log-row')].map((row) => row.textContent)")

    @property
    def commands(self) -> Sequence[str]:
        """The commands in the list, as they stand."""
        return self.run("return [...document.querySelectorAll('.item-command')].map((one) => one.textContent)")

    @property
    def status(self) -> str:
        """What is said of the log: live, complete, away; and its lines."""
        return self.text("#log-status")
