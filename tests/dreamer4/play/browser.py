"""A headless Chromium, driven through its DevTools protocol by a websocket."""

import base64
import contextlib
import itertools
import json
import shutil
import subprocess
import time
import urllib.request
from pathlib import Path

from websockets.sync.client import connect

NAMES = ('chromium', 'chromium-browser', 'google-chrome')
FLAGS = (
    '--headless',
    '--no-sandbox',
    '--disable-gpu',
    '--no-first-run',
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-sync',
    '--disable-extensions',
    '--disable-dev-shm-usage',
    '--mute-audio',
    '--remote-debugging-port=0',
)
PATIENCE = 600.0  # seconds after which something that is waited for will not happen any more
GOING = 'navigated or closed'
CODES = {' ': 'Space', '.': 'Period', ',': 'Comma'}


def find() -> str | None:
    """The program, None where it is not installed."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


@contextlib.contextmanager
def running(folder: Path):
    """A browser with a profile of its own in `folder`; gives a function that opens a page."""
    command = [find(), *FLAGS, f'--user-data-dir={folder}', 'about:blank']
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        file = folder / 'DevToolsActivePort'
        wait(
            lambda: file.exists() and len(file.read_text().split()) == 2, 'Chromium does not start'
        )
        port = file.read_text().split()[0]
        with contextlib.ExitStack() as stack:
            yield lambda url: stack.enter_context(Page.opened(port, url))
    finally:
        process.terminate()
        process.wait(PATIENCE)


def wait(true, words: str):
    """What a function returns, once it is true."""
    deadline = time.monotonic() + PATIENCE
    while not (found := true()):
        assert time.monotonic() < deadline, words() if callable(words) else words
        time.sleep(0.03)
    return found


class Page:
    """One tab."""

    def __init__(self, socket):
        self._socket, self._numbers = socket, itertools.count(1)
        self.errors = []  # of its scripts

    @classmethod
    @contextlib.contextmanager
    def opened(cls, port: str, url: str):
        """A new tab at an address."""
        ask = urllib.request.Request(f'http://127.0.0.1:{port}/json/new?about:blank', method='PUT')
        target = json.load(urllib.request.urlopen(ask))['webSocketDebuggerUrl']
        with connect(target, max_size=None, compression=None) as socket:
            page = cls(socket)
            for domain in ('Page', 'Runtime', 'Network'):
                page.call(f'{domain}.enable')
            page.go(url)
            yield page

    def go(self, url: str) -> None:
        """Load an address."""
        self.call('Page.navigate', url=url)
        self.until("document.readyState === 'complete'")

    def call(self, method: str, **params):
        """The result of a method of the protocol."""
        number = next(self._numbers)
        self._socket.send(json.dumps({'id': number, 'method': method, 'params': params}))
        while True:
            told = json.loads(self._socket.recv(PATIENCE))
            if told.get('method') == 'Runtime.exceptionThrown':
                details = told['params']['exceptionDetails']
                self.errors.append(details.get('exception', {}).get('description', str(details)))
            if told.get('id') == number:
                if GOING in told.get('error', {}).get('message', ''):
                    return {'result': {}}  # the page is just being left for another
                assert 'error' not in told, told
                return told['result']

    def js(self, expression: str):
        """The JSON value of an expression."""
        result = self.call(
            'Runtime.evaluate', expression=expression, returnByValue=True, awaitPromise=True
        )
        assert 'exceptionDetails' not in result, result['exceptionDetails']
        return result['result'].get('value')

    def until(self, expression: str):
        """Wait until an expression is true; its value."""
        state = lambda: f'{expression} stays false; alert: {self.js(ALERT)!r}; {self.errors}'
        return wait(lambda: self.js(expression), state)

    def number(self, name: str) -> int:
        """A number that the page shows of itself, such as 'frames'."""
        return int(self.js(f'document.body.dataset.{name}') or 0)

    def click(self, selector: str) -> None:
        """Press a button, as a person who uses the keyboard does."""
        self.js(f'document.querySelector({selector!r}).click()')

    def hold(self, key: str) -> None:
        """Press a key."""
        self._key('keyDown', key)

    def release(self, key: str) -> None:
        """Let go of a key."""
        self._key('keyUp', key)

    def press(self, key: str) -> None:
        """Press a key and let go."""
        self.hold(key)
        self.release(key)

    def _key(self, kind: str, key: str) -> None:
        code = CODES.get(key, key if len(key) > 1 else f'Key{key.upper()}')
        self.call('Input.dispatchKeyEvent', type=kind, key=key, code=code)

    def size(self, width: int, height: int) -> None:
        """Make the window so many pixels wide and high; below 600 it is a phone."""
        self.call(
            'Emulation.setDeviceMetricsOverride',
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )

    def picture(self, file: Path) -> None:
        """The whole page as a PNG."""
        shot = self.call('Page.captureScreenshot', format='png', captureBeyondViewport=True)
        file.write_bytes(base64.b64decode(shot['data']))


ALERT = "document.getElementById('alert')?.textContent"
