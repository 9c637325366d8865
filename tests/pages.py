"""HTML pages as a parser and as a browser read them."""

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any


class Scripts(HTMLParser):
    """The scripts of a page, as a browser parts them from the rest."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.texts: dict[str, str] = {}
        self.tags: list[str] = []
        self._type: str | None = None
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag == "script":
            self._type = dict(attributes).get("type") or "script"
            self.texts[self._type] = ""

    def handle_endtag(self, tag: str) -> None:
        if tag == "script":
            self._type = None

    def handle_data(self, data: str) -> None:
        if self._type is not None:
            self.texts[self._type] += data


class Page:
    """A page in headless Chromium."""

    def __init__(self, driver: Any, path: Path) -> None:
        self.driver = driver
        self.url = path.as_uri()
        driver.get_log("performance")
        driver.get_log("browser")
        driver.get(self.url)

    def all(self, selector: str) -> list[Any]:
        return list(self.driver.find_elements("css selector", selector))

    def texts(self, selector: str) -> list[str]:
        return [element.get_attribute("textContent") for element in self.all(selector)]

    def press(self, keys: str, selector: str = "body") -> None:
        self.all(selector)[0].send_keys(keys)

    def run(self, script: str) -> Any:
        return self.driver.execute_script(script)

    def requested(self) -> set[str]:
        """What the page asked for, wherever from."""
        messages = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        return {m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"}

    def complaints(self) -> list[Any]:
        """What the browser's console says."""
        return list(self.driver.get_log("browser"))
