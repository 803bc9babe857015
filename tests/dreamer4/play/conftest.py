"""A game on a run that hardly learned, and a server of it."""

import asyncio
import contextlib
import threading
from dataclasses import replace
from types import SimpleNamespace

import pytest

from dreamer4.play.making import maker
from dreamer4.play.server import Server

PATIENCE = 600.0  # seconds after which something that is waited for will not happen any more


def arguments(logdir, folder, **changes):
    """What the command line would say."""
    said = dict(
        logdir=logdir,
        out=folder,
        frames=None,
        alone=False,
        trust=False,
        device='cpu',
        threads=1,
        seed=0,
    )
    return SimpleNamespace(**(said | changes))


@pytest.fixture
def made(played, tmp_path):
    """Make a game, without samples for uncertainty, and its recorder; further arguments as on the
    command line.
    """

    def make(world='dreamer4', on_episode=lambda path: None, samples=0, **changes):
        make_game, recorder, _ = maker(arguments(played(world), tmp_path, **changes), print)
        game = make_game(on_episode)
        game.set(replace(game.settings, samples=samples))
        return game, recorder

    return make


class Served:
    """A server in a thread of its own.

    Attributes:
        url: of its page. said: lines that it logged.
    """

    def __init__(self, logdir, folder, token='', **changes):
        make, self.recorder, title = maker(arguments(logdir, folder, **changes), print)
        self.said, self.url, ready = [], None, threading.Event()
        self.server = Server(make, self.recorder, title, token, self.said.append)

        def begun(url):
            self.url = url
            ready.set()

        async def run():
            self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
            with contextlib.suppress(asyncio.CancelledError):
                await self.server.run('127.0.0.1', 0, begun)

        self._thread = threading.Thread(target=asyncio.run, args=(run(),), daemon=True)
        self._thread.start()
        assert ready.wait(PATIENCE), 'the server does not start'

    def drop(self):
        """Break all connections, as a network does."""
        pages = list(self.server._viewers)
        self._loop.call_soon_threadsafe(lambda: [page.transport.abort() for page in pages])

    def close(self):
        """Stop it as Ctrl-C does."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()


@pytest.fixture
def serve(played, tmp_path):
    """Start a server on the run; further arguments as on the command line."""
    started = []

    def start(world='dreamer4', **changes):
        started.append(Served(played(world), tmp_path / 'play', **changes))
        return started[-1]

    yield start
    for served in started:
        served.close()
