"""One game: a dream, beside a real env or alone, and who acts in it. Knows no server.

Everything here runs in one thread, in which the env was made: graphics contexts are bound to it.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from embodied.base import Env, Values
from embodied.errors import EmbodiedError

from ..dream import Dream, Moment
from ..starts import Rows, Starts
from ..worlds import Sampling
from . import controls
from .messages import finite
from .tree import Node, Tree, pictures


class GameError(EmbodiedError):
    """Something that cannot be done now; says why."""


@dataclass(frozen=True)
class Settings:
    """What may be set while playing.

    Attributes:
        sampling, samples: of the dream. seed: of its random numbers.
        auto: begin a new episode where the real one ends.
    """

    sampling: Sampling = Sampling()
    samples: int = 4
    seed: int = 0
    auto: bool = True


class Game:
    """Plays.

    Args:
        dream: in whose world model. env: beside it; None where none can be made. starts: frames to
            begin at; None where there are none.
        on_episode: called with the path of nodes of an episode before another one begins.

    Attributes:
        news: sentences that a person should read, for whoever tells them to take out.

    Raises:
        GameError: there is neither an env nor a frame to begin at.
    """

    def __init__(
        self,
        dream: Dream,
        env: Env | None,
        starts: Starts | None,
        settings: Settings = Settings(),
        on_episode: Callable[[list[Node]], None] = lambda path: None,
    ):
        if env is None and starts is None:
            raise GameError('there is neither an env nor a replay folder to begin at')
        self.dream, self.env, self.starts, self._on_episode = dream, env, starts, on_episode
        self._rng, self._record, self._env_at = np.random.default_rng(settings.seed), None, None
        self.place, self._count, self.news = None, 0, []
        self.set(settings)
        self.fresh()

    # -- where it begins

    def fresh(self) -> None:
        """Begin anew: an episode of the env, or another frame of the replay."""
        if self.env is not None:
            return self.beside()
        if self.starts is None:
            raise GameError('there is no env any more, and no replay folder to begin at')
        episode = int(self._rng.integers(len(self.starts.episodes)))
        frame = int(self._rng.integers(self.starts.episodes[episode].length - 1))
        self.alone(episode, frame)

    def beside(self) -> None:
        """Begin an episode of the env, and the dream at its first frame."""
        if self.env is None:
            raise GameError('there is no env here; begin at a frame of the replay')
        rest = controls.resting(self.dream.act_space)
        row = self._ask(lambda env: dict(env.step(rest | {'reset': np.bool_(True)})))
        if row is None:
            return self.fresh()
        self._leave()
        moment = self.dream.begin({k: np.asarray(v)[None, None] for k, v in (row | rest).items()})
        self._record, self.place = None, None
        self._plant(moment, row, moment)

    def alone(self, episode: int, frame: int) -> None:
        """Begin the dream at a frame of the replay, with what came before it.

        Raises:
            GameError: there is no such frame.
        """
        if self.starts is None:
            raise GameError('there is no replay folder here; --frames names one')
        try:
            rows = self.starts.before(episode, frame, self.dream.context)
            self._leave()
            self._record, self.place = self.starts.after(episode, frame), (episode, frame)
        except IndexError as error:
            raise GameError(str(error)) from error
        moment = self.dream.begin({k: v[None] for k, v in rows.items()})
        self._plant(moment, self._recorded(0), moment)

    def restart(self) -> None:
        """Go back to the start; the tree is kept."""
        self.tree.go(0)

    def goto(self, number: int) -> None:
        """Go back, or forth again, to a frame.

        Raises:
            GameError: there is none of this number, or it is no longer kept.
        """
        try:
            self.tree.go(number)
        except KeyError as error:
            raise GameError(f'frame {number} is not kept, or never was') from error

    def _leave(self) -> None:
        if hasattr(self, 'tree'):
            self._on_episode(self.tree.path())

    def _plant(self, moment: Moment, real: Values, seen: Moment) -> None:
        self._count = 1
        state = self._ask(lambda env: env.save()) if self._record is None else None
        root = Node(0, None, 0, 'start', None, moment, real, seen, state)
        root.on_record, self._env_at = self._record is not None, 0
        root.stats = stats(root, self.dream)
        self.tree = Tree(root)

    # -- one step

    def choose(self, who: str, said: Values | None) -> Values | None:
        """What is done next; None where the recording ends.

        Args:
            who: one of messages.WHO. said: what the player does.
        """
        node = self.tree.current
        if who in ('sample', 'mode'):
            return one(self.dream.act(node.dream, who == 'mode'))
        if who == 'recorded':
            if self._record is None:
                raise GameError('nothing is recorded here: begin at a frame of the replay')
            last = len(self._record['is_last']) - 1
            if node.depth >= last or self._record['is_last'][node.depth]:
                return None
            return {k: self._record[k][node.depth] for k in self.dream.act_space}
        return said if said is not None else controls.resting(self.dream.act_space)

    def step(self, who: str, said: Values | None = None) -> bool:
        """One step from the current frame on; False where there is none: the recording ended.

        Raises:
            GameError: the recording is asked for where there is none.
        """
        node = self.tree.current
        over = node.real_over and self.settings.auto and self._record is None
        if over and self.env is not None:
            self.beside()
            return True
        action = self.choose(who, said)
        if action is None:
            return False
        batch = {k: np.asarray(v)[None] for k, v in action.items()}
        child = Node(
            self._count,
            node.number,
            node.depth + 1,
            who,
            action,
            self.dream.step(node.dream, batch),
        )
        child.on_record = node.on_record and who == 'recorded'
        child.real = self._real_after(node, child)
        if child.real is not None and node.seen is not None:
            seen = {k: np.asarray(v)[None] for k, v in child.real.items()}
            child.seen = self.dream.see(node.seen, batch, seen)
        child.stats = stats(child, self.dream)
        self._count += 1
        self.tree.grow(child)
        return True

    def _real_after(self, node: Node, child: Node) -> Values | None:
        """What really came of the same action, where that can be known."""
        if child.on_record:
            return self._recorded(child.depth)
        if self._record is not None or node.real is None or node.real_over:
            return None
        if self.env is None or self._env_at != node.number and node.state is None:
            return None  # an env that was lost, or one that cannot go back

        def step(env: Env) -> Values:
            if self._env_at != node.number:
                env.load(node.state)
            row = dict(env.step({**child.action, 'reset': np.bool_(False)}))
            child.state, self._env_at = env.save(), child.number
            return row

        return self._ask(step)

    def _ask(self, question: Callable[[Env], Any]) -> Any:
        """The env's answer; None where it raises, whatever that is: a dream needs no env."""
        try:
            return question(self.env)
        except Exception as error:
            self.news.append(f'the env is lost, it raised {type(error).__name__}: {error}')
            self.env = None
            return None

    def _recorded(self, index: int) -> Values | None:
        rows: Rows = self._record
        return {k: v[index] for k, v in rows.items()} if index < len(rows['is_last']) else None

    # -- settings

    def set(self, settings: Settings) -> None:
        """Take over settings.

        Raises:
            GameError: the model cannot follow them.
        """
        try:
            self.dream.sampling = settings.sampling
        except ValueError as error:
            raise GameError(str(error)) from error
        self.dream.samples, self.settings = settings.samples, settings
        self.dream.reseed(settings.seed)

    def close(self) -> None:
        """Leave the episode, and close the env."""
        try:
            self._leave()
        finally:
            if self.env is not None:
                self.env.close()

    def policy(self) -> list[dict]:
        """What the policy says at the current frame, as JSON."""
        out = []
        for choice in self.dream.policy(self.tree.current.dream):
            told = {'key': choice.key, 'index': choice.index}
            if len(choice.values):
                told['values'] = np.round(choice.values.astype(float), 4).tolist()
                told['probs'] = np.round(choice.probs[0].astype(float), 4).tolist()
            else:
                told |= {'mean': finite(choice.mean[0]), 'std': finite(choice.std[0])}
            out.append(told)
        return out


def one(batch: Values) -> Values:
    """The first of a batch."""
    return {k: v[0] for k, v in batch.items()}


def stats(node: Node, dream: Dream) -> dict[str, float | None]:
    """Numbers of a frame for the curves; None where there are none.

    reward, cont, value, entropy, spread: what the dream says, see dream.Moment. real_reward,
    real_value: of the real frame. error: squared, of the latents. pixels: mean difference of the
    pixels, in [0, 1]. alike: their correlation.
    """
    moment, real, seen = node.dream, node.real, node.seen
    names = ('reward', 'cont', 'value', 'entropy', 'spread')
    out = {name: finite(getattr(moment, name)[0]) for name in names}
    if node.parent is None:
        out['reward'] = None  # nothing led here
    if real is None:
        return out
    paid = node.parent is not None and not real['is_first']
    out['real_reward'] = finite(float(real['reward'])) if paid else None
    if seen is not None:
        out |= {
            'real_value': finite(seen.value[0]),
            'error': finite(dream.error(moment, seen)[0]),
        }
    ours, theirs = pictures(one(moment.obs)), pictures(real)
    if ours and ours.keys() <= theirs.keys():
        flat = lambda images: np.concatenate([images[k].reshape(-1) for k in ours]) / 255.0
        a, b = flat(ours), flat(theirs)
        spread = a.std() * b.std()
        out['pixels'] = finite(np.abs(a - b).mean())
        out['alike'] = finite(((a - a.mean()) * (b - b.mean())).mean() / spread) if spread else None
    return out


def updated(settings: Settings, said: dict) -> Settings:
    """Settings as a page says them."""
    how = Sampling(said['steps'], said['mean'], said['noise'])
    return replace(
        settings, sampling=how, samples=said['samples'], seed=said['seed'], auto=said['auto']
    )
