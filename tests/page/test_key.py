"""A caller's key in the page: imported once, never shown again, and a fresh token from it for each call."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import grpc
import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

from tests.client.fakes import chunk, end, execution, follow, output, snapshot
from tests.client.keys import Key
from tests.page.browser import PHONE, WIDE, Browser, Page
from tests.page.proving import DONE, LOG, Proving
from tests.waiting import eventually

# What a script of the page could find of a key: everything that is stored, and whether the key can be read out.
STORED = """
const done = arguments[0];
const opening = indexedDB.open('rexec', 1);
opening.onsuccess = () => {
  const asked = opening.result.transaction('keys').objectStore('keys').get('caller');
  asked.onsuccess = async () => {
    const { key, ...said } = asked.result;
    const read = await crypto.subtle.exportKey('raw', key).then(() => 'read', (error) => error.name);
    opening.result.close();
    done({ ...said, read, extractable: key.extractable, usages: key.usages.join() });
  };
};
"""
FORGET = """
const done = arguments[0];
localStorage.clear();
const deleting = indexedDB.deleteDatabase('rexec');
deleting.onsuccess = deleting.onerror = () => done();
"""
EVERYTHING = """
const fields = [...document.querySelectorAll('input, textarea')].map((one) => one.value);
const stored = [localStorage, sessionStorage].map((one) => JSON.stringify(one));
return [document.documentElement.outerHTML, location.href, ...fields, ...stored].join();
"""
PASTE = """
const data = new DataTransfer();
data.setData('text', arguments[1]);
const event = new ClipboardEvent('paste', {clipboardData: data, cancelable: true});
document.querySelector(arguments[0]).dispatchEvent(event);
"""


@pytest.fixture(scope="module")
def proving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proving]:
    """One server that asks for tokens, and one gateway, for all of these tests."""
    proving = Proving(tmp_path_factory.mktemp("proving"))
    yield proving
    proving.close()


@pytest.fixture
def locked(browser: Browser, proving: Proving) -> Iterator[Page]:
    """The page of a server that asks for a proof, in a browser that has no key yet."""
    proving.server.answer_as_usual()
    page = Page(browser, proving)  # type: ignore[arg-type]
    browser.look(WIDE)
    page.driver.get(f"{proving.gateway}/static/favicon.svg")
    page.driver.execute_async_script(FORGET)
    browser.console()
    yield page.open()
    complaints = [line for line in browser.console() if "status of 401" not in line]
    browser.driver.get("about:blank")
    assert complaints == []


def sign_in(page: Page, key: Key) -> None:
    """As a person does it who has the file."""
    eventually(lambda: page.sees("#key-file"))
    page.find("#key-file").send_keys(str(key.path))
    eventually(lambda: page.text("#caller") == "as alice")


def press(page: Page, key: str) -> None:
    """To whatever has the focus, also to a field for files, which would take typed text for a file's name."""
    ActionChains(page.driver).send_keys(key).perform()


def error(page: Page) -> str:
    return page.text("#caller-error")


def test_a_server_that_asks_for_a_proof_gets_the_form(locked: Page, proving: Proving) -> None:
    """Without a key the page asks for one instead of showing an error; closed, the question waits behind a button."""
    eventually(lambda: locked.sees("#caller-dialog"))
    assert locked.sees("#key-file")
    assert not locked.sees("#caller-name")
    assert locked.run("return document.activeElement.id") == "key-file"
    press(locked, Keys.ESCAPE)
    eventually(lambda: not locked.sees("#caller-dialog"))
    assert locked.text("#banner-text") == "This server asks who you are."
    assert locked.text("#connection") == "not signed in"
    locked.click("#banner-retry")
    eventually(lambda: locked.sees("#key-file"))
    sign_in(locked, proving.key)
    eventually(lambda: list(locked.commands) == ["echo proved"])
    assert not locked.sees("#banner")
    assert not locked.sees("#caller-dialog")


def test_each_call_carries_a_token_of_its_own(locked: Page, proving: Proving) -> None:
    """The tokens are what a server accepts, name caller, server and time, and none is used twice."""
    sign_in(locked, proving.key)
    before = len(proving.server.claims)
    locked.driver.refresh()
    eventually(lambda: locked.text("#caller") == "as alice")
    locked.click(".item")
    eventually(lambda: list(locked.rows) == ["proved"])
    claims = proving.server.claims[before:]
    assert {"List", "GetServerInfo", "Get", "Follow"} <= {claim["rpc"] for claim in claims}
    for claim in claims:
        assert (claim["sub"], claim["aud"], claim["exp"] - claim["iat"]) == ("alice", "build7", 60)
        assert abs(claim["iat"] - time.time()) < 30
        assert len(claim["jti"]) >= 22
    # One request of the page may be more than one call of the gateway's, with the same token: only to read.
    assert len({claim["jti"] for claim in claims}) >= 3


def test_the_key_cannot_be_read_out_and_is_nowhere_else(locked: Page, proving: Proving) -> None:
    """After the import no script, storage, address, markup or log has the secret; and a reload keeps the key."""
    sign_in(locked, proving.key)
    locked.open()
    eventually(lambda: locked.text("#caller") == "as alice")
    stored = locked.driver.execute_async_script(STORED)
    assert stored == {
        "kid": "alice-1", "sub": "alice", "aud": "build7",
        "read": "InvalidAccessError", "extractable": False, "usages": "encrypt",
    }  # fmt: skip
    assert proving.key.encoded not in locked.run(EVERYTHING)
    assert proving.key.encoded not in proving.log
    assert proving.key.encoded not in " ".join(locked.browser.console())


def test_a_pasted_key_never_stands_in_the_page(locked: Page, proving: Proving) -> None:
    """What is pasted is taken as it comes; typed, it is gone from the field once it was taken."""
    eventually(lambda: locked.sees("#key-text"))
    locked.run(PASTE, "#key-text", "nonsense")
    eventually(lambda: "not JSON" in error(locked))
    assert locked.find("#key-text").get_property("value") == ""
    locked.run(PASTE, "#key-text", proving.key.text)
    eventually(lambda: locked.text("#caller") == "as alice")
    assert proving.key.encoded not in locked.run(EVERYTHING)
    locked.click("#caller")
    locked.click("#key-forget")
    locked.type("#key-text", proving.key.text)
    locked.click("#caller-use")
    eventually(lambda: locked.text("#caller") == "as alice")
    assert proving.key.encoded not in locked.run(EVERYTHING)


def test_a_stream_goes_on_with_a_fresh_token(locked: Page, proving: Proving) -> None:
    """A token outlives its call's beginning, not an hour of following: a stream that it cannot renew is opened anew."""
    sign_in(locked, proving.key)
    state = execution(LOG, exec_id="x", caller="alice", state=2, shell="echo proved")
    proving.server.on(
        "Follow",
        follow(snapshot(state), output(chunk(0, LOG[:3])), cut=grpc.StatusCode.UNAUTHENTICATED),
        follow(output(chunk(3, LOG[3:])), end(DONE)),
    )
    before = len(proving.server.claims)
    locked.click(".item")
    eventually(lambda: locked.state == "exit 0")
    assert locked.status.startswith("complete")
    assert list(locked.rows) == ["proved"]
    follows = [claim for claim in proving.server.claims[before:] if claim["rpc"] == "Follow"]
    assert len({claim["jti"] for claim in follows}) == len(follows) == 2
    # The gateway has no token but the one that opened the stream: it must not want to renew it every few minutes.
    assert min(claim["seconds_left"] for claim in follows) > 3600


def test_a_key_can_be_forgotten(locked: Page, proving: Proving) -> None:
    """The page says whose key it has; forgotten, it is gone for good, and the server asks again."""
    sign_in(locked, proving.key)
    locked.click("#caller")
    eventually(lambda: locked.sees("#key-held"))
    assert locked.text("#key-held").startswith("As alice, with the key alice-1 for build7.")
    assert not locked.sees("#caller-name")
    refused = proving.server.refused
    locked.click("#key-forget")
    eventually(lambda: proving.server.refused > refused)
    eventually(lambda: locked.sees("#key-file"))
    locked.open()
    eventually(lambda: locked.sees("#key-file"))
    assert "alice" not in locked.text("#caller")


def test_a_file_that_does_not_say_whose_key_it_is_is_asked_about(locked: Page, proving: Proving) -> None:
    """Caller and server are asked for in the form when the file leaves them out, and only then."""
    bare = {name: value for name, value in json.loads(proving.key.text).items() if name not in ("sub", "aud")}
    path = proving.directory / "bare.jwk"
    path.write_text(json.dumps(bare))
    eventually(lambda: locked.sees("#key-file"))
    assert not locked.sees("#key-sub")
    locked.find("#key-file").send_keys(str(path))
    eventually(lambda: locked.sees("#key-sub") and locked.sees("#key-aud"))
    locked.type("#key-sub", "alice" + Keys.ENTER)
    eventually(lambda: error(locked) == "The file does not say which server the key is for.")
    locked.type("#key-aud", "build8" + Keys.ENTER)
    eventually(lambda: locked.text("#caller") == "as alice")
    assert proving.server.claims[-1]["aud"] == "build8"


WRONG_FILES = {
    "-----BEGIN CERTIFICATE-----": "it is not JSON",
    "[]": "This is no key file.",
    '{"keys": [{}]}': "a set of keys",
    '{"kty": "RSA", "kid": "a", "n": "AQAB"}': "of another kind",
    '{"kty": "oct", "alg": "HS256", "kid": "a", "k": "AAAA"}': "of another kind",
    '{"kty": "oct", "kid": "a", "k": "AAAA"}': "“k” must have 32 bytes",
    '{"kty": "oct", "k": "AAAA"}': "“kid” is missing",
    " " * 70_000: "it is too large",
}


def test_a_wrong_file_gives_a_sentence(locked: Page, proving: Proving) -> None:
    """Whatever else is chosen by mistake is told apart, and a good file still works after it."""
    path = proving.directory / "wrong"
    eventually(lambda: locked.sees("#key-file"))
    for text, sentence in WRONG_FILES.items():
        path.write_text(text)
        locked.find("#key-file").send_keys(str(path))
        eventually(lambda: sentence in error(locked))  # noqa: B023 (it is asked at once)
        assert locked.find("#key-file").get_property("value") == ""
    sign_in(locked, proving.key)


def test_the_form_works_by_keyboard_on_a_phone_and_in_the_dark(locked: Page, proving: Proving) -> None:
    """Everything in it can be reached with Tab, and nothing is wider than a phone."""
    eventually(lambda: locked.sees("#key-file"))
    reached = set()
    for _ in range(6):
        reached.add(locked.run("return document.activeElement.id || document.activeElement.tagName"))
        press(locked, Keys.TAB)
    assert {"key-file", "key-text", "caller-use"} <= reached
    locked.browser.look(PHONE, "dark")
    wide = "return [...document.querySelectorAll('dialog[open] *')].map((one) => one.getBoundingClientRect().right)"
    assert max(locked.run(wide)) <= PHONE[0]
    ground = "return getComputedStyle(document.querySelector('#caller-dialog')).backgroundColor"
    assert locked.run(ground) != "rgb(255, 255, 255)"
