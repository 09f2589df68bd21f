"""A headless Chromium that is clicked as a person would, over its debugging pipe."""

import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)
FLAGS = "--headless --no-sandbox --disable-gpu --no-first-run --remote-debugging-pipe".split()


class Browser:
    """One page, `width` pixels wide."""

    def __init__(self, profile: Path, width: int = 1100) -> None:
        commands, self._send = os.pipe()
        self._receive, answers = os.pipe()
        # Chromium reads from 3 and writes to 4.
        self._process = subprocess.Popen(
            ["bash", "-c", f'exec "$@" 3<&{commands} 4>&{answers}', "bash"]
            + [CHROMIUM or "", *FLAGS, f"--user-data-dir={profile}"],
            pass_fds=(commands, answers),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(commands)
        os.close(answers)
        self._count, self._rest, self._session = 0, b"", {}
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        attached = self.ask("Target.attachToTarget", targetId=target, flatten=True)
        self._session = {"sessionId": attached["sessionId"]}
        self.resize(width)

    def __enter__(self) -> "Browser":
        return self

    def __exit__(self, *_: object) -> None:
        self._session = {}
        self.ask("Browser.close")
        self._process.wait(30)
        os.close(self._send)
        os.close(self._receive)

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The answer to a command of the DevTools protocol."""
        self._count += 1
        command = {"id": self._count, "method": method, "params": parameters, **self._session}
        os.write(self._send, json.dumps(command).encode() + b"\0")
        while True:
            while b"\0" not in self._rest:
                more = os.read(self._receive, 1 << 20)
                assert more, f"Chromium ended at {method}"
                self._rest += more
            text, _, self._rest = self._rest.partition(b"\0")
            answer = json.loads(text)
            if answer.get("id") == self._count:
                assert "error" not in answer, answer["error"]
                return answer["result"]

    def resize(self, width: int, height: int = 900) -> None:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.ask("Emulation.setDeviceMetricsOverride", **size)

    def open(self, address: str) -> None:
        """Goes to an address and waits until its page is loaded."""
        # From another page, lest a new fragment be only a jump within this one.
        self.ask("Page.navigate", url="about:blank")
        self.wait("location.href === 'about:blank'")
        self.ask("Page.navigate", url=address)
        self.wait("location.href !== 'about:blank' && document.readyState === 'complete'")

    def value(self, expression: str) -> Any:
        """What JavaScript gives for an expression on the page."""
        answer = self.ask(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, (expression, answer["exceptionDetails"])
        return answer["result"].get("value")

    def wait(self, expression: str, seconds: float = 60) -> Any:
        """The value of an expression as soon as it is true of the page."""
        end = time.monotonic() + seconds
        while not (value := self.value(expression)):
            assert time.monotonic() < end, f"never true: {expression}"
            time.sleep(0.02)
        return value

    def click(self, selector: str) -> None:
        """A mouse click in the middle of the first element that a CSS selector finds."""
        place = f"document.querySelector({json.dumps(selector)})"
        self.value(f"{place}.scrollIntoView({{block: 'center', behavior: 'instant'}})")
        middle = f"(b => [b.x + b.width / 2, b.y + b.height / 2])({place}.getBoundingClientRect())"
        at, before = self.value(middle), None
        # What comes into view may be laid out only then, and move what is below it.
        while at != before:
            time.sleep(0.1)
            at, before = self.value(middle), at
        self.click_at(*at)

    def click_at(self, x: float, y: float) -> None:
        """A mouse click somewhere in the window, where the mouse goes first."""
        for kind, button in (("Moved", "none"), ("Pressed", "left"), ("Released", "left")):
            at = {"x": x, "y": y, "button": button, "clickCount": 1}
            self.ask("Input.dispatchMouseEvent", type=f"mouse{kind}", **at)
            self.value("new Promise(done => setTimeout(done, 100))")

    def press(self, key: str) -> None:
        """One key, such as "Tab" or "Enter"."""
        text = {"Enter": "\r", " ": " "}.get(key, "")
        code = {"Tab": 9, "Enter": 13, " ": 32}[key]
        for kind in ("keyDown", "keyUp"):
            down = {"text": text} if kind == "keyDown" and text else {}
            self.ask(
                "Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code, **down
            )

    def type(self, text: str) -> None:
        self.ask("Input.insertText", text=text)
