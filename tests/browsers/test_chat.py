"""The chat of examples/flask_chat.py, with browsers: they talk, one vanishes, the server restarts."""

from __future__ import annotations

import os
import urllib.parse
from contextlib import ExitStack
from pathlib import Path

import pytest
from chromium import Page, open_page
from processes import Process

pytestmark = pytest.mark.deadline(280)

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "flask_chat.py"

CONNECTED = "document.getElementById('state').className == 'open'"


def here(page: Page) -> list[str]:
    return [
        str(name)
        for name in page.evaluate("[...document.querySelectorAll('#here li')].map(e => e.textContent)")
    ]


def wait_here(page: Page, *names: str) -> None:
    page.wait_for(
        f"[...document.querySelectorAll('#here li')].map(e => e.textContent).join() == {','.join(names)!r}"
    )


def say(page: Page, text: str) -> None:
    page.evaluate("document.getElementById('text').focus()")
    page.type(text)
    page.press_enter()


def said(page: Page, name: str, text: str) -> None:
    """Wait until a line stands in the log, with the name of whoever said it."""
    page.wait_for(
        "[...document.querySelectorAll('.said')].some("
        f"e => e.querySelector('b').textContent == {name!r}"
        f" && e.querySelector('span').textContent == {text!r})"
    )


def test_two_browsers_talk_one_vanishes_and_the_server_restarts() -> None:
    with ExitStack() as stack:
        server = stack.enter_context(Process(EXAMPLE, "0"))
        url = server.url()
        ann = stack.enter_context(open_page(f"{url}/?name=Ann"))
        bob = stack.enter_context(open_page(f"{url}/?name=Bob"))
        for page in ann, bob:
            page.wait_for(CONNECTED)
        wait_here(ann, "Ann (you)", "Bob")
        wait_here(bob, "Ann", "Bob (you)")

        say(ann, "Hello, Bob!")
        say(bob, "grüße <b>zurück</b> 🙂")
        for page in ann, bob:
            said(page, "Ann", "Hello, Bob!")
            # As text, whatever it is.
            said(page, "Bob", "grüße <b>zurück</b> 🙂")
        if "GEVENTWS_SCREENSHOT" in os.environ:
            ann.screenshot(Path(os.environ["GEVENTWS_SCREENSHOT"]))

        bob.vanish()
        wait_here(ann, "Ann (you)")
        assert "Bob left" in ann.text()

        assert server.stop() == 0
        ann.wait_for(f"!({CONNECTED})")
        assert ann.evaluate("document.querySelector('button').disabled")
        assert here(ann) == []
        # Unanswered tries, and then one that is answered.
        ann.wait_for("delay >= 1000")
        again = stack.enter_context(Process(EXAMPLE, str(urllib.parse.urlsplit(url).port)))
        assert again.url() == url
        ann.wait_for(CONNECTED)
        wait_here(ann, "Ann (you)")
        say(ann, "still here")
        said(ann, "Ann", "still here")
        # What was said before is still to be read.
        said(ann, "Ann", "Hello, Bob!")
        assert ann.errors == []
        assert again.stop() == 0
        assert server.errors() == ""
        assert again.errors() == ""
