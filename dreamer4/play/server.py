"""The server: one game, one player, any number of viewers, a static page. No request goes to
another host.

Requests are answered in the event loop; the game runs in one thread of its own.
"""

import asyncio
import json
import time
import traceback
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from socket import gethostname
from typing import Any

from websockets.asyncio.server import ServerConnection, broadcast, serve
from websockets.exceptions import ConnectionClosed

from embodied.errors import EmbodiedError

from . import controls, frames, messages
from .game import Game, GameError, updated
from .messages import MessageError
from .pace import Pace
from .pages import Pages
from .record import Recorder
from .tree import Node

BEHIND = 2  # frames that wait for a viewer, beyond which it misses some
SPEED = 15.0  # steps a second
ANY = ('0.0.0.0', '::')  # hosts that are no address of their own


class Server:
    """See the module.

    Args:
        make: makes the game; called in the game's thread with the function for finished episodes.
        recorder: of what is played. title: of the page. token: that the address must hold; '' for
            none. say: told one line at a time.
    """

    def __init__(
        self,
        make: Callable[[Callable], Game],
        recorder: Recorder,
        title: str,
        token: str,
        say: Callable[[str], None],
    ):
        self._make, self._recorder, self._title, self._token = make, recorder, title, token
        self._say, self._game, self._pages = say, None, Pages(token, recorder.folder)
        self._thread = ThreadPoolExecutor(1, 'game')
        self._viewers: set[ServerConnection] = set()
        self._behind: set[ServerConnection] = set()  # viewers that missed frames
        self._player: ServerConnection | None = None
        self._playing, self._turn = asyncio.Event(), asyncio.Lock()
        self._who, self._speed, self._said, self._sent = 'you', SPEED, None, None
        self._recording, self._pace = False, Pace()

    # -- life

    async def run(self, host: str, port: int, ready: Callable[[str], None]) -> None:
        """Serve until the task is cancelled.

        Args:
            ready: called with the address once pages can be fetched.

        Raises:
            OSError: the port cannot be had.
        """
        self._game = await self._call(self._make, self._finished)
        try:
            async with serve(
                self._talk,
                host,
                port,
                process_request=lambda connection, request: self._pages.answer(request),
                max_size=messages.LARGEST,
                compression=None,
                ping_timeout=60,
            ) as server:
                found = server.sockets[0].getsockname()[1]
                shown = gethostname() if host in ANY else f'[{host}]' if ':' in host else host
                ready(f'http://{shown}:{found}/' + (f'?token={self._token}' if self._token else ''))
                await self._tick()
        finally:  # when nobody can ask for anything any more
            self._say(str(self._pace))
            await self._call(self._game.close)
            self._thread.shutdown()

    async def _tick(self) -> None:
        loop, due = asyncio.get_running_loop(), 0.0
        while True:
            await self._playing.wait()
            wait = due - loop.time()
            await asyncio.sleep(max(0.0, wait))
            due = max(due, loop.time() - 0.1) + (1 / self._speed if self._speed else 0.0)
            if not self._playing.is_set():
                continue
            if error := await self._tried(self._step()):
                self._pause()
                self._tell_all({'type': 'playing', 'playing': False})
                self._tell_all({'type': 'error', 'text': error})

    async def _step(self) -> None:
        async with self._turn:
            begun, root = time.perf_counter(), self._game.tree.nodes[0]
            went = await self._call(self._game.step, self._who, self._said)
            if not went:
                self._pause()
                self._tell_all({'type': 'note', 'text': 'the recording ends here'})
            if self._game.tree.nodes[0] is not root:
                self._tell_all(frames.tree(self._game))
            while self._game.news:
                self._tell_all({'type': 'note', 'text': self._game.news.pop(0)})
            await self._show()
            self._pace.add(begun, time.perf_counter())

    async def _tried(self, doing: Awaitable[None]) -> str:
        """Do something; returns what went wrong, which ends neither the server nor a page."""
        try:
            await doing
        except (MessageError, EmbodiedError, ValueError, OSError) as error:
            return str(error)
        except ConnectionClosed:
            raise
        except Exception as error:  # of a model's or an env's own code
            self._say(traceback.format_exc())
            return f'{type(error).__name__}: {error}'
        return ''

    def _pause(self) -> None:
        self._playing.clear()
        self._pace.rest()

    async def _call(self, function: Callable, *args) -> Any:
        """Run something in the thread of the game."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *args)

    # -- talk

    async def _talk(self, connection: ServerConnection) -> None:
        """One page, from its coming to its going."""
        try:
            await self._welcome(connection)
            async for text in connection:
                if error := await self._tried(self._hear(connection, text)):
                    await connection.send(json.dumps({'type': 'error', 'text': error}))
        except ConnectionClosed:
            pass
        finally:
            self._viewers.discard(connection)
            self._behind.discard(connection)
            if self._player is connection:
                self._player, self._said, self._sent = None, None, None
            if not self._viewers:
                self._pause()
            self._seats()

    async def _welcome(self, connection: ServerConnection) -> None:
        async with self._turn:  # nothing is waited for here but the game: this page may be stuck
            frame = await self._call(frames.frame, self._game, self._state())
            for told in (self._hello(), frames.tree(self._game)):
                broadcast([connection], json.dumps(told, allow_nan=False))
            broadcast([connection], frame)
            self._viewers.add(connection)
            if self._player is None:
                self._player = connection
        self._seats()

    def _hello(self) -> dict[str, Any]:
        game, how = self._game, self._game.settings
        return {
            'type': 'hello',
            'title': self._title,
            'controls': controls.describe(game.dream.act_space),
            'env': game.env is not None,
            'rewinds': game.env is not None and game.tree.nodes[0].state is not None,
            'frames': game.starts is not None,
            'context': game.dream.context,
            'denoises': game.dream.agent.config.world == 'dreamer4',
            'levels': game.dream.agent.config.dynamics.levels,
            'steps': game.dream.agent.config.shortcut.steps,
            'settings': {
                'steps': how.sampling.steps,
                'mean': how.sampling.mean,
                'noise': how.sampling.noise,
                'samples': how.samples,
                'seed': how.seed,
                'auto': how.auto,
            },
        }

    async def _hear(self, connection: ServerConnection, text: str | bytes) -> None:
        """Do what a page asks for."""
        said = messages.read(text)
        kind = said['type']
        if kind in ('starts', 'frames'):
            show = frames.strip if kind == 'starts' else frames.episode
            async with self._turn:
                data = await self._call(show, self._game, said.get('first', said.get('episode')))
            await connection.send(data)
            return
        if kind == 'claim':
            if self._player is not None and self._player is not connection:
                raise GameError('somebody else plays; you may watch')
            self._player = connection
            self._seats()
            return
        if self._player is not connection:
            raise GameError('only the player may do this; you are watching')
        await getattr(self, f'_on_{kind}')(said)

    async def _on_act(self, said: dict[str, Any]) -> None:
        self._said = controls.read(said['action'], self._game.dream.act_space)
        self._sent = said['sent']

    async def _on_who(self, said: dict[str, Any]) -> None:
        if said['who'] == 'recorded' and self._game.place is None:
            raise GameError('nothing is recorded here: begin at a frame of the replay')
        self._who = said['who']
        self._tell_all({'type': 'who', 'who': self._who})

    async def _on_play(self, said: dict[str, Any]) -> None:
        self._playing.set()
        self._tell_all({'type': 'playing', 'playing': True})

    async def _on_pause(self, said: dict[str, Any]) -> None:
        self._pause()
        self._tell_all({'type': 'playing', 'playing': False})

    async def _on_step(self, said: dict[str, Any]) -> None:
        self._pause()
        await self._step()

    async def _on_speed(self, said: dict[str, Any]) -> None:
        self._speed = float(said['value'])

    async def _on_leave(self, said: dict[str, Any]) -> None:
        self._player, self._said = None, None
        self._seats()

    async def _on_latency(self, said: dict[str, Any]) -> None:
        self._pace.browser = said['p50'], said['p95']
        self._say(str(self._pace))

    async def _on_goto(self, said: dict[str, Any]) -> None:
        await self._change(self._game.goto, said['node'])

    async def _on_restart(self, said: dict[str, Any]) -> None:
        await self._change(self._game.restart)

    async def _on_fresh(self, said: dict[str, Any]) -> None:
        await self._change(self._game.fresh, whole=True)

    async def _on_begin(self, said: dict[str, Any]) -> None:
        await self._change(self._game.alone, said['episode'], said['frame'], whole=True)

    async def _on_settings(self, said: dict[str, Any]) -> None:
        await self._change(self._game.set, updated(self._game.settings, said))
        self._tell_all(self._hello())

    async def _change(self, change: Callable, *args, whole: bool = False) -> None:
        async with self._turn:
            await self._call(change, *args)
            if self._who == 'recorded' and self._game.place is None:
                self._who = 'you'
            if whole:
                self._tell_all(frames.tree(self._game))
            await self._show()

    async def _on_record(self, said: dict[str, Any]) -> None:
        self._recording = said['on']
        self._seats()

    async def _on_save(self, said: dict[str, Any]) -> None:
        async with self._turn:
            path, what = self._game.tree.path(), said['what']
            if what == 'rows':
                count = await self._call(self._recorder.save_rows, path)
                text = f'{count} rows in {self._recorder.rows}'
                self._tell_all({'type': 'saved', 'text': text, 'film': None})
                return
            fps = self._speed or 15.0
            film = await self._call(self._recorder.save_film, path, what, min(fps, 50.0))
            self._tell_all({'type': 'saved', 'text': str(film), 'film': film.name})

    def _finished(self, path: list[Node]) -> None:
        """An episode is left behind, in the game's thread: kept where that is asked for."""
        if self._recording and len(path) > 1 and path[1].real is not None:
            if not path[-1].on_record:
                self._recorder.save_rows(path)

    # -- news

    def _state(self) -> dict[str, Any]:
        return self._pace.numbers() | {
            'playing': self._playing.is_set(),
            'acts': self._who,
            'speed': self._speed,
            'sent': self._sent,
        }

    async def _show(self) -> None:
        """Send the current frame to everybody who keeps up; who does so again gets the tree too."""
        data = await self._call(frames.frame, self._game, self._state())
        self._sent, most = None, BEHIND * len(data)
        behind = {v for v in self._viewers if self._backlog(v) > most}
        if back := self._behind - behind:
            broadcast(back, json.dumps(frames.tree(self._game), allow_nan=False))
        broadcast(self._viewers - behind, data)
        self._behind = behind

    @staticmethod
    def _backlog(viewer: ServerConnection) -> int:
        """Bytes that wait for a viewer to read."""
        return viewer.transport.get_write_buffer_size()

    def _seats(self) -> None:
        for viewer in list(self._viewers):
            told = {
                'type': 'seat',
                'player': viewer is self._player,
                'free': self._player is None,
                'viewers': len(self._viewers),
                'recording': self._recording,
            }
            broadcast([viewer], json.dumps(told))

    def _tell_all(self, told: dict[str, Any]) -> None:
        broadcast(self._viewers, json.dumps(told, allow_nan=False))
