"""Who may have the page, and what it asks for."""

import re

import pytest
from websockets.datastructures import Headers
from websockets.http11 import Request

from dreamer4.play.pace import Pace
from dreamer4.play.pages import PAGE, Pages


def status(pages, path, **headers):
    answer = pages.answer(Request(path, Headers({'Host': '127.0.0.1:8000'} | headers)))
    return None if answer is None else answer.status_code


def test_this_machine_needs_no_token(tmp_path):
    pages = Pages('', tmp_path)
    assert status(pages, '/') == 200 and status(pages, '/play.js') == 200
    assert status(pages, '/play') is None, 'a websocket comes in'
    assert status(pages, '/', Host='localhost:8000') == 200


@pytest.mark.parametrize(
    'path, headers',
    [
        ('/play', {'Host': 'evil.example:8000'}),
        ('/play', {'Origin': 'http://evil.example'}),
        ('/play', {'Origin': 'null'}),
    ],
)
def test_pages_of_others_may_not_play_here(tmp_path, path, headers):
    assert status(Pages('', tmp_path), path, **headers) == 403


def test_other_machines_need_the_token(tmp_path):
    pages, other = Pages('secret', tmp_path), {'Host': 'box:8000'}
    for path in ('/', '/play', '/films/film-001.gif'):
        assert status(pages, path, **other) == 403
        assert status(pages, f'{path}?token=wrong', **other) == 403
    assert status(pages, '/?token=secret', **other) == 200
    assert status(pages, '/play?token=secret', **other, Origin='http://box:8000') is None


def test_only_films_are_handed_out_of_the_folder(tmp_path):
    (tmp_path / 'film-001.gif').write_bytes(b'GIF')
    (tmp_path / 'other.gif').write_bytes(b'GIF')
    pages = Pages('', tmp_path)
    assert status(pages, '/films/film-001.gif') == 200
    for path in (
        '/films/other.gif',
        '/films/film-002.gif',
        '/films/film-/../other.gif',
        '/x',
        '/..',
    ):
        assert status(pages, path) == 404, path


def test_the_page_asks_no_other_host_and_every_field_has_a_name():
    for file in PAGE.iterdir():
        assert not re.findall(r'(?:https?|wss?):?//', file.read_text()), file
    html = (PAGE / 'index.html').read_text()
    labelled = re.sub(r'<label.*?</label>', '', html, flags=re.S)
    for tag in re.findall(r'<(?:input|select|canvas)[^>]*>', labelled):
        assert 'aria-label' in tag, tag


def test_every_element_that_the_scripts_name_is_in_the_page():
    html = (PAGE / 'index.html').read_text()
    there = set(re.findall(r'id="([\w-]+)"', html))
    scripts = ''.join(file.read_text() for file in PAGE.glob('*.js'))
    named = set(re.findall(r"\$\('([\w-]+)'\)", scripts))
    assert len(named) > 20 and not named - there


def test_the_pace_is_that_of_the_steps():
    pace = Pace()
    assert pace.numbers() == {'fps': 0.0, 'p50': 0.0, 'p95': 0.0}
    for n in range(20):
        pace.add(n * 0.1, n * 0.1 + 0.02)
    assert pace.numbers() == {'fps': 10.0, 'p50': 20.0, 'p95': 20.0}
    pace.browser = 30.0, 50.0
    assert str(pace).endswith('; key to picture 30 ms, 50 ms')
    pace.rest()
    assert pace.numbers()['fps'] == 0
