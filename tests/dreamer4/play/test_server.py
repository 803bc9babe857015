"""The server as pages hear it: who plays, who watches, what cannot end it."""

import json
import urllib.error
import urllib.request

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

PATIENCE = 600.0


class Talk:
    """A page without a browser."""

    def __init__(self, url):
        base, _, query = url.partition('?')
        self.socket = connect(base.replace('http', 'ws') + 'play?' + query, max_size=None)

    def say(self, kind, **fields):
        self.socket.send(json.dumps({'type': kind, **fields}))

    def hear(self, kind, which=lambda told: True):
        """The next message of a type that fits."""
        while True:
            data = self.socket.recv(PATIENCE)
            if isinstance(data, bytes):
                data = data[4 : 4 + int.from_bytes(data[:4], 'little')]
            told = json.loads(data)
            if told['type'] == kind and which(told):
                return told


@pytest.fixture
def talk():
    """Open a page without a browser."""
    opened = []

    def open_(url):
        opened.append(Talk(url))
        return opened[-1]

    yield open_
    for page in opened:
        page.socket.close()


def test_one_plays_and_the_others_watch(serve, talk):
    served = serve()
    player, *viewers = [talk(served.url) for _ in range(3)]
    assert player.hear('hello')['controls'][0]['kind'] == 'box'
    for viewer in viewers:
        viewer.hear('frame')
        assert not viewer.hear('seat')['player']
        viewer.say('step')
        assert 'only the player' in viewer.hear('error')['text']
        viewer.say('claim')
        assert 'somebody else plays' in viewer.hear('error')['text']
    player.say('act', action={'action': [1, 0]}, sent=12.5)
    player.say('step')
    for page in (player, *viewers):
        told = page.hear('frame', lambda told: told['node'] == 1)
        assert told['action'] == {'action': [1, 0]} and told['sent'] == 12.5
    player.socket.close()
    viewers[0].hear('seat', lambda told: told['free'] and told['viewers'] == 2)
    viewers[0].say('claim')
    assert viewers[0].hear('seat', lambda told: told['player'])
    viewers[0].say('play')
    assert viewers[1].hear('frame', lambda told: told['depth'] > 3)['playing']


def test_nothing_that_a_page_says_ends_the_server(serve, talk):
    served = serve()
    page = talk(served.url)
    page.hear('seat')
    nonsense = ['', '{}', '[1]', '{"type": "goto", "node": 7}', '{"type": "step", "x": 1}', '\0']
    nonsense += ['{"type": "act", "action": {"action": [1]}, "sent": 0}', b'\x00\xff']
    nonsense += ['{"type": "begin", "episode": 100000, "frame": 0}', '{"type": "settings"}']
    nonsense += [f'{{"type": "act", "action": {{"action": [{10**400}, 0]}}, "sent": 0}}']
    nonsense += ['{"type": "frames", "episode": 100000}', '{"type": "who", "who": "recorded"}']
    for text in nonsense:
        page.socket.send(text)
        assert page.hear('error')['text'], text
    large = talk(served.url)
    large.socket.send('x' * 100_000)  # this page is sent away
    page.say('step')
    assert page.hear('frame', lambda told: told['node'] == 1)


def test_what_the_game_raises_is_told_and_pauses_it(serve, talk, monkeypatch):
    served = serve()
    page = talk(served.url)
    page.hear('seat')
    monkeypatch.setattr(served.server._game, 'step', lambda who, said: [][1])
    page.say('step')
    assert page.hear('error')['text'] == 'IndexError: list index out of range'
    page.say('play')
    page.hear('playing', lambda told: not told['playing'])
    assert 'IndexError' in page.hear('error')['text']
    assert 'Traceback' in served.said[-1]
    monkeypatch.undo()
    page.say('step')
    assert page.hear('frame', lambda told: told['node'] == 1)


def test_a_page_that_does_not_read_holds_nobody_up(serve, talk, monkeypatch):
    served = serve()
    page, stuck = talk(served.url), talk(served.url)
    page.hear('seat', lambda told: told['viewers'] == 2)
    full = lambda viewer: 1 << 30 if viewer is not served.server._player else 0
    real = served.server.__class__._backlog
    monkeypatch.setattr(served.server.__class__, '_backlog', staticmethod(full))
    for _ in range(3):
        page.say('step')
    page.hear('frame', lambda told: told['node'] == 3)
    monkeypatch.setattr(served.server.__class__, '_backlog', staticmethod(real))
    page.say('step')
    stuck.hear('tree', lambda told: len(told['nodes']) == 5)
    assert stuck.hear('frame')['node'] == 4, 'it learns of what it missed'


def test_settings_saves_and_a_new_tree_are_told_to_all(serve, talk):
    served = serve()
    page, viewer = talk(served.url), talk(served.url)
    page.hear('seat')
    said = {'steps': 4, 'mean': True, 'noise': 0.25, 'samples': 2, 'seed': 5, 'auto': False}
    page.say('settings', **said)
    assert viewer.hear('hello', lambda told: told['settings']['steps'] == 4)['settings'] == said
    for _ in range(2):
        page.say('step')
    page.say('save', what='rows')
    assert viewer.hear('saved')['text'].startswith('3 rows in ')
    page.say('save', what='gif')
    film = viewer.hear('saved')['film']
    assert urllib.request.urlopen(f'{served.url}films/{film}').read()[:3] == b'GIF'
    page.say('begin', episode=0, frame=2)
    told = viewer.hear('tree', lambda told: told['place'])
    assert told['place'] == {'episode': 0, 'frame': 2} and len(told['nodes']) == 1
    page.say('who', who='recorded')
    page.say('step')
    assert viewer.hear('frame', lambda told: told['depth'] == 1)['acts'] == 'recorded'
    viewer.say('frames', episode=0)
    assert viewer.hear('episode')['frames'][0] == 0
    viewer.say('starts', first=0)
    assert viewer.hear('starts')['episodes'][0]['episode'] == 0


def test_episodes_are_kept_while_recording(serve, talk):
    served = serve()
    page = talk(served.url)
    page.say('record', on=True)
    page.hear('seat', lambda told: told['recording'])
    for _ in range(2):
        page.say('step')
    page.say('fresh')
    page.hear('tree', lambda told: len(told['nodes']) == 1)
    page.hear('frame', lambda told: told['depth'] == 0)
    assert list(served.recorder.rows.glob('*.npz'))


def test_a_full_disk_is_told_to_the_page(serve, talk, monkeypatch):
    served = serve(alone=True)

    def full(*args):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(served.recorder, 'save_film', full)
    page = talk(served.url)
    page.say('save', what='gif')
    assert 'No space left' in page.hear('error')['text']
    page.say('step')
    assert page.hear('frame', lambda told: told['depth'] == 1)


def test_it_says_how_fast_it_is_when_it_ends(serve, talk):
    served = serve(alone=True)
    page = talk(served.url)
    page.say('step')
    page.hear('frame', lambda told: told['depth'] == 1)
    page.say('latency', p50=20, p95=30)
    page.say('claim')
    page.hear('seat')
    served.close()
    assert served.said[-1].endswith('key to picture 20 ms, 30 ms')


def test_a_token_is_asked_for(serve):
    served = serve(token='secret')
    assert served.url.endswith('/?token=secret')
    assert urllib.request.urlopen(served.url).status == 200
    with pytest.raises(urllib.error.HTTPError, match='403'):
        urllib.request.urlopen(served.url.partition('?')[0])
    with pytest.raises(InvalidStatus):
        Talk(served.url.replace('secret', 'guess'))
