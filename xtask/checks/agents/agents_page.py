"""The page of the agents in a browser: chat, approval by keyboard, edit, refusal, trace, 360 px, dark.

    pip install playwright     (with a chromium that is installed)
    python agents_page.py BASE_URL [CHROMIUM]
"""

import sys

from playwright.sync_api import sync_playwright

BASE = sys.argv[1].rstrip("/")
CHROMIUM = sys.argv[2] if len(sys.argv) > 2 else None
failures = 0


def check(name, good, detail=""):
    global failures
    failures += not good
    print(("ok   " if good else "FAIL ") + name, str(detail)[:200])


def choose(page, name):
    page.locator("[data-testid=agent]", has_text=f"plays {name}").click()


def ask(page, text):
    page.get_by_label("Message to the agent").fill(text)
    page.keyboard.press("Enter")


def until(page, place, text):
    """The page's policy forbids to evaluate scripts in it, so that locators wait."""
    page.locator(place, has_text=text).first.wait_for(timeout=20000)


with sync_playwright() as play:
    browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
    for width, scheme in [(1200, "light"), (360, "dark")]:
        page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
        errors = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda line: errors.append(line.text) if line.type == "error" else None)
        page.goto(BASE)
        page.wait_for_selector("[data-testid=agent]")
        check(f"{width} agents", page.locator("[data-testid=agent]").count() == 9)
        ask(page, "<b>hello</b>")
        until(page, "[data-testid=messages]", "you said: <b>hello</b>")
        check(f"{width} no markup", page.locator("#messages b").count() == 0)
        choose(page, "looker")
        ask(page, "a")
        until(page, "[data-testid=messages]", "it is a cat")
        check(f"{width} tool shown", 'look {"at":"a"}' in page.locator("#messages").inner_text())
        for way, expected in [("approve", "that is all"), ("edit", "that is all"), ("refuse", "that is all")]:
            choose(page, "mailer")
            ask(page, way)
            card = page.locator("[data-testid=approval]", has_text=f'"text": "{way}"')
            card.wait_for()
            check(f"{width} {way}: exact call", "mail.send" in card.inner_text() and '"to": "anna"' in card.inner_text())
            if way == "approve":
                card.get_by_role("button", name="Approve mail.send").focus()
                page.keyboard.press("Enter")
            elif way == "edit":
                card.get_by_role("button", name="Edit the arguments of mail.send").click()
                card.locator("textarea").fill("{")
                card.get_by_role("button", name="Approve as edited").click()
                check(f"{width} wrong JSON is told", card.locator(".problem").inner_text() != "")
                card.locator("textarea").fill('{"to": "otto"}')
                card.get_by_role("button", name="Approve as edited").click()
            else:
                card.get_by_role("button", name="Refuse mail.send").click()
                card.locator("textarea").fill("not now")
                card.get_by_role("button", name="Refuse", exact=True).click()
            until(page, "[data-testid=messages]", expected)
            card.wait_for(state="detached")
            check(f"{width} {way}: goes on", True)
        page.locator("[data-testid=run]", has_text="edit").first.wait_for()
        page.locator("[data-testid=run]", has_text="edit").first.click()
        until(page, "[data-testid=trace]", "ended: done")
        trace = page.locator("[data-testid=trace]").inner_text()
        check(f"{width} trace", "waits: may" in trace and "calls mail.send" in trace and '"to": "otto"' in trace and "result after" in trace, trace)
        page.keyboard.press("Escape")
        check(f"{width} trace closes", page.locator("#trace").is_hidden())
        wide = page.evaluate("document.documentElement.scrollWidth")
        check(f"{width} fits", wide <= width, wide)
        unnamed = page.evaluate("[...document.querySelectorAll('button, input, textarea')].filter((e) => e.offsetParent && !(e.textContent.trim() || e.getAttribute('aria-label') || e.labels?.length)).length")
        check(f"{width} names", unnamed == 0, unnamed)
        check(f"{width} no errors", not errors, errors)
        page.screenshot(path=f"/tmp/agents-{width}.png")
        page.close()
    browser.close()
sys.exit(failures > 0)
