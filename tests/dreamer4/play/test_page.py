"""The page in a real browser, played as a person does: keys, buttons, a gamepad, several tabs."""

import os

import pytest
from browser import find, running

from embodied.replay.archive import Archive


@pytest.fixture
def pages(tmp_path_factory):
    """Opens pages in a browser; REQUIRE_BROWSER=1 fails where there is none."""
    if find() is None:
        assert os.environ.get('REQUIRE_BROWSER') != '1', 'REQUIRE_BROWSER=1, but no Chromium'
        pytest.skip('Chromium is not installed')
    with running(tmp_path_factory.mktemp('profile')) as open_page:
        yield open_page


def depth(page, expected):
    page.until(f'document.body.dataset.depth == {expected}')


def numbers(page, selector):
    return page.js(f'[...document.querySelectorAll({selector!r})].map((e) => +e.textContent)')


# how often the connection was lost, seen by the page itself: it is back before anybody asks
LOST = """window.lost = 0; new MutationObserver(() => {
  if (document.body.dataset.connected === 'false') window.lost += 1;
}).observe(document.body, {attributes: true})"""
PIXELS = """(() => { const c = document.querySelector('.real canvas'); if (!c) return null;
  return [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data].join(); })()"""
GAMEPAD = """navigator.getGamepads = () => [{axes: [0, %s], buttons: []}]"""


def test_a_person_plays(serve, pages):
    """One story, for a browser takes seconds to start: look, act, let the policy act and take
    over, go back and branch, keep it, and lose the connection.
    """
    served = serve()
    page = pages(served.url)
    page.size(1280, 900)
    page.until('document.body.dataset.frames > 0 && document.body.dataset.player')

    # a key moves the thing: one step while paused
    before = page.until(PIXELS)
    page.press('ArrowRight')
    depth(page, 1)
    page.until(f'{PIXELS} !== {before!r}')
    assert served.server._game.tree.current.action['action'].tolist() == [1, 0]

    # the policy plays, and one key takes over
    page.press('t')
    page.until("document.body.dataset.acts === 'sample'")
    page.press(' ')
    page.until("document.body.dataset.playing === 'true' && document.body.dataset.depth > 4")
    page.press('t')
    page.until("document.body.dataset.acts === 'you'")
    page.press(' ')
    page.until("document.body.dataset.playing === 'false'")
    page.press('.')
    played = page.number('depth')

    # back, and another branch from there; the old one is kept
    page.js(
        "const r = document.querySelector('#rewind'); r.value = 2; "
        "r.dispatchEvent(new Event('input'))"
    )
    depth(page, 2)
    page.press('ArrowLeft')
    depth(page, 3)
    page.until("document.querySelectorAll('#branches button').length === 2")
    page.press(',')
    depth(page, 2)
    page.click('#branches button')
    page.until(f'document.body.dataset.depth >= {played}')

    # a gamepad's axis moves a slider, and its player acts
    page.js(GAMEPAD % 0.5)
    page.until("document.querySelectorAll('.slider output')[1].textContent === '0.50'")
    page.js(GAMEPAD % 0)
    page.until("document.querySelectorAll('.slider output')[1].textContent === '0.00'")

    # another key for what the first one did
    count = page.number('frames')
    page.click('.action details button')
    page.press('j')
    page.until("document.querySelector('.slider kbd').textContent === 'j'")
    assert page.number('frames') == count, 'binding a key plays nothing'
    page.press('j')
    page.until(f'document.body.dataset.frames > {count}')
    assert served.server._game.tree.current.action['action'].tolist() == [-1, 0]

    # keep what was played
    page.click('#save-rows')
    page.until("document.getElementById('saved').textContent.includes('rows in')")
    (episode,) = Archive(served.recorder.rows).episodes()
    assert episode.length == page.number('depth') + 1 and episode.whole

    # others watch the same frames and cannot play
    viewers = [pages(served.url) for _ in range(2)]
    for viewer in viewers:
        viewer.until("document.body.dataset.player === 'false' && document.body.dataset.frames > 0")
        assert viewer.js("document.getElementById('play').disabled")
    page.until("document.body.dataset.viewers === '3'")
    page.press('.')
    for viewer in viewers:
        viewer.until(f'document.body.dataset.depth == {page.number("depth")}')

    # begin at another frame of the replay
    page.click('#strip button')
    page.until("document.querySelectorAll('#moments button').length > 1")
    page.click('#moments button:nth-child(2)')
    depth(page, 0)
    assert served.server._game.place[0] == 0 < served.server._game.place[1]

    # nonsense is answered, and a lost connection comes back
    socket = "new WebSocket(new URL('play', location.href).href.replace('http', 'ws'))"
    page.js(f"const s = {socket}; s.onopen = () => s.send('nonsense')")
    # the browser's own switch to offline is no way: its network service may spin for ever then
    page.js(LOST)
    served.drop()
    page.until("window.lost > 0 && document.body.dataset.connected === 'true'")
    assert not page.errors and not any(viewer.errors for viewer in viewers)


def test_it_fits_on_a_phone(serve, pages):
    page = pages(serve().url)
    page.size(390, 844)
    page.until('document.body.dataset.frames > 0')
    wide = 'document.documentElement.scrollWidth'
    assert page.js(wide) <= 390, 'nothing has to be pushed aside'
    for selector in ('#toggle', '.panes canvas', '.curve:not([hidden]) canvas'):
        assert page.js(f'document.querySelector({selector!r}).getBoundingClientRect().width') > 40
