"""Takes the documentation's pictures of a run, by Chromium and Selenium: `python docs/make_pictures.py runs/text-… 415 7`."""

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from PIL import Image
from selenium import webdriver

from seqgan_env.__main__ import main as seqgan_env

IMAGES = Path(__file__).parent / "images"


@contextmanager
def browser() -> Iterator[Any]:
    """Headless Chromium, light."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or shutil.which("google-chrome") or "chromium"
    for argument in ("--headless=new", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"):
        options.add_argument(argument)
    if os.geteuid() == 0:
        options.add_argument("--no-sandbox")  # Chromium's sandbox does not start for root, who runs containers
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    try:
        yield driver
    finally:
        driver.quit()


def take(driver: Any, page: Path, token: int, width: int, selector: str, name: str) -> None:
    """A picture of the first element that matches, on a page that shows a token, from 1."""
    driver.set_window_size(width, 3000)
    driver.get(page.resolve().as_uri())
    driver.execute_script(f"go({token - 1})")
    save(driver.find_element("css selector", selector).screenshot_as_png, name)


def save(png: bytes, name: str) -> None:
    """A picture in few colours, which is a small file."""
    Image.open(BytesIO(png)).convert("RGB").quantize(64).save(IMAGES / f"{name}.png", optimize=True)
    print(IMAGES / f"{name}.png")


def main(run: str, seed: int = 0, token: int = 1) -> None:
    """Inspect the run's episode of a seed, and picture the page and its parts at a token."""
    IMAGES.mkdir(exist_ok=True)
    with TemporaryDirectory() as folder, browser() as driver:
        one, both = Path(folder) / "one.html", Path(folder) / "both.html"
        inspect = ["inspect", "--run", run, "--seed", str(seed), "--html"]
        seqgan_env([*inspect, str(one), "--checkpoint", "generator"])
        seqgan_env([*inspect, str(both)])
        take(driver, one, token, 1000, "body", "inspector")
        take(driver, one, token, 1000, ".strip", "rewards")
        take(driver, one, token, 1000, ".plot", "values")
        take(driver, one, token, 1000, ".step", "completions")
        take(driver, both, token, 1200, "body", "checkpoints")
    save((Path(run) / "learning_curve.png").read_bytes(), "learning_curve")


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
