"""The tasks of the DeepMind Control Suite, dmc_<domain>_<task>, from pixels, from proprioception,
or from both.

Rows per episode: 1 + 1000 / repeat for nearly all tasks, cut by a time limit. Frames are rendered
only where the image is asked for.
"""

import dataclasses
import os
import sys
import warnings

import numpy as np
from gymnasium import spaces

from ..base import FLAG, OUTCOME, Env, Values, outcome
from ..errors import ConfigError, EnvMissing
from ..extras import install_hint, require
from ..stack import StackFrames
from ..wrappers import ActionRepeat, Wrapper
from . import unknown, unknown_task

ARM = 'manipulation_'  # tasks of the robot arm
CAMERAS = {'quadruped': 2}  # domain -> camera where the first one, 0, does not show the task
# Domain -> its tasks: names that need no look into the suite, whose import takes half a second.
TASKS = {
    'acrobot': 'swingup swingup_sparse',
    'ball_in_cup': 'catch',
    'cheetah': 'run',
    'cartpole': 'balance balance_sparse swingup swingup_sparse two_poles three_poles',
    'dog': 'stand walk trot run fetch',
    'finger': 'spin turn_easy turn_hard',
    'fish': 'upright swim',
    'hopper': 'stand hop',
    'humanoid': 'stand walk run run_pure_state',
    'humanoid_CMU': 'stand walk run',
    'lqr': 'lqr_2_1 lqr_6_2',
    'manipulator': 'bring_ball bring_peg insert_ball insert_peg',
    'pendulum': 'swingup',
    'point_mass': 'easy hard',
    'quadruped': 'walk run escape fetch',
    'reacher': 'easy hard',
    'stacker': 'stack_2 stack_4',
    'swimmer': 'swimmer6 swimmer15',
    'walker': 'stand walk run',
}
QUALITIES = ('standard', 'fast')


@dataclasses.dataclass(frozen=True)
class DMCConfig:
    """What can be set.

    Attributes:
      repeat: frames per decision, >= 1.
      size: height and width of the image in pixels.
      image: observe the key 'image', uint8 (size, size, 3).
      proprio: observe the suite's own keys, float32.
      camera: number of a fixed camera of the domain; -1: the one that shows the task.
      cameras: numbers of several fixed cameras, whose images are the keys 'camera_<number>' in
        place of 'image'; () for that one.
      sizes: height and width of the image of each of them; () for size.
      quality: 'standard', what the suite draws by default, or 'fast', without shadows and
          reflections. Both smooth edges by multisampling: that is what tells where between two
          pixels a thin body stands.
      stack: frames of an image that one observation holds, as channels, the newest last.
    """

    repeat: int
    size: int
    image: bool
    proprio: bool
    camera: int
    cameras: tuple[int, ...]
    sizes: tuple[int, ...]
    quality: str
    stack: int


def check(name: str, config: DMCConfig) -> None:
    """Refuse what make() would refuse; imports the suite only for a name that is not in TASKS.

    Raises:
      ConfigError: unknown task or value. EnvMissing: dm_control is not installed.
    """
    if not (config.image or config.proprio):
        raise ConfigError(
            'env.dmc.image and env.dmc.proprio are both false; there would be nothing to observe.'
        )
    if config.quality not in QUALITIES:
        raise ConfigError(unknown('quality', config.quality, QUALITIES, ' in env.dmc.quality'))
    if min(config.repeat, config.size, config.stack) < 1:
        raise ConfigError(
            'env.dmc.repeat, env.dmc.size and env.dmc.stack must be at least 1, got'
            f' {config.repeat}, {config.size} and {config.stack}.'
        )
    if len(set(config.cameras)) < len(config.cameras):
        raise ConfigError(f'env.dmc.cameras names one twice: {list(config.cameras)}.')
    if config.sizes and (len(config.sizes) != len(config.cameras) or min(config.sizes) < 1):
        raise ConfigError(
            f'env.dmc.sizes must hold a size for each of env.dmc.cameras {list(config.cameras)},'
            f' got {list(config.sizes)}.'
        )
    require('dm_control', 'dmc')
    if name.startswith(ARM):
        return
    known = {f'{domain}_{task}' for domain, tasks in TASKS.items() for task in tasks.split()}
    if full_name(name) not in known:
        find(name, import_suite(config.image).ALL_TASKS)


def make(name: str, config: DMCConfig, seed: int) -> Env:
    """The task dmc_<name>.

    Raises:
      ConfigError, EnvMissing: as in check(). EnvMissing, too: no graphics library can be loaded.
    """
    check(name, config)
    suite = import_suite(config.image)
    if name.startswith(ARM):
        domain, kind = 'manipulation', ArmCamera
        source = physics_env = load_arm(name.removeprefix(ARM), seed)
    else:
        domain, task = find(name, suite.ALL_TASKS)
        # The suite seeds a numpy RandomState, which takes 32 bits.
        physics_env = suite.load(domain, task, task_kwargs={'random': seed % 2**32})
        source, kind = physics_env.physics, Camera
    env = ActionRepeat(DMC(physics_env, config.proprio), config.repeat)
    if not config.image:
        return env
    usual = CAMERAS.get(domain, 0) if config.camera == -1 else config.camera
    sizes = config.sizes or [config.size] * max(1, len(config.cameras))
    keys = [f'camera_{camera}' for camera in config.cameras] or ['image']
    for key, camera, size in zip(keys, config.cameras or [usual], sizes, strict=True):
        env = kind(env, source, camera, size, config.quality, key)
    return env if config.stack == 1 else StackFrames(env, config.stack, tuple(keys))


def load_arm(name: str, seed: int):
    """A task of dm_control.manipulation, seen through its features, with five cameras: front
    close, front far, top down, left close, right close.

    Raises:
      ConfigError: unknown task.
    """
    from dm_control import manipulation
    from dm_control.manipulation.shared import cameras

    known = {
        each.removesuffix('_features'): each
        for each in manipulation.ALL
        if each.endswith('_features')
    }
    if name not in known:
        raise unknown_task('dmc', f'{ARM}{name}', [f'{ARM}{each}' for each in known])
    arm = manipulation.load(known[name], seed=seed % 2**32)
    world = arm.task.root_entity.mjcf_model.worldbody
    for camera in (cameras.FRONT_FAR, cameras.TOP_DOWN, cameras.LEFT_CLOSE, cameras.RIGHT_CLOSE):
        world.add('camera', **camera._asdict())
    arm.reset()  # compiles it with them
    return arm


def import_suite(render: bool):
    """dm_control.suite, imported with a graphics backend where one is needed.

    Both mujoco and dm_control choose their backend while they are imported, by the variable
    MUJOCO_GL, and fail where its library is missing. Without rendering that is no reason to fail,
    so they are then imported without a backend.
    """
    os.environ.setdefault('MUJOCO_GL', 'egl')
    try:
        with warnings.catch_warnings():
            if not render:
                warnings.filterwarnings('ignore', module='glfw')  # no display: none is needed
            from dm_control import suite
        return suite
    except ModuleNotFoundError as error:
        if (error.name or '').split('.')[0] in ('dm_control', 'mujoco'):
            raise EnvMissing(
                f'the package {error.name} is not installed; {install_hint("dmc")}'
            ) from error
        raise
    except (ImportError, AttributeError, RuntimeError, OSError) as error:
        # PyOpenGL reports a missing library as AttributeError, dm_control as RuntimeError or
        # ImportError.
        backend = os.environ['MUJOCO_GL']
        if render:
            raise EnvMissing(
                f'No frames can be rendered with MUJOCO_GL={backend} ({error}). Install its library'
                ' (Debian, Ubuntu: apt-get install libegl1 libgl1 for egl, libosmesa6 for osmesa),'
                ' choose another backend with MUJOCO_GL=egl|osmesa|glfw, or do without images'
                ' (env.dmc.image false).'
            ) from error
    for name in [name for name in sys.modules if name.split('.')[0] in ('dm_control', 'mujoco')]:
        del sys.modules[name]
    os.environ['MUJOCO_GL'] = 'disabled'
    os.environ.pop('PYOPENGL_PLATFORM', None)
    from dm_control import suite

    return suite


def find(name: str, tasks) -> tuple[str, str]:
    """Domain and task of '<domain>_<task>'. Both may hold '_', so the name is looked up whole;
    'cup' is short for 'ball_in_cup'.
    """
    known = {f'{domain}_{task}': (domain, task) for domain, task in tasks}
    if full_name(name) not in known:
        raise unknown_task('dmc', name, known)
    return known[full_name(name)]


def full_name(name: str) -> str:
    """The suite's own name of a task."""
    return f'ball_in_{name}' if name.startswith('cup_') else name


class DMC(Env):
    """A dm_control environment seen through its state: one float32 key per observation of the
    suite, or none.

    is_terminal where the task's discount is 0; the end of the suite's time limit has discount 1 and
    is not terminal.
    """

    def __init__(self, env, proprio: bool):
        self._env = env
        self._done = True
        # Some tasks have observations without entries, such as the orientations of a single sphere.
        self._keys = [
            key for key, spec in env.observation_spec().items() if proprio and 0 not in spec.shape
        ]

    @property
    def obs_space(self):
        specs = self._env.observation_spec()
        return {
            key: spaces.Box(-np.inf, np.inf, specs[key].shape, np.float32) for key in self._keys
        } | OUTCOME

    @property
    def act_space(self):
        spec = self._env.action_spec()
        low, high = (np.broadcast_to(bound, spec.shape) for bound in (spec.minimum, spec.maximum))
        return {
            'action': spaces.Box(low.astype(np.float32), high.astype(np.float32)),
            'reset': FLAG,
        }

    def step(self, action: Values) -> Values:
        if action['reset'] or self._done:
            step = self._env.reset()
        else:
            step = self._env.step(action['action'])
        self._done = step.last()
        result = outcome(
            step.reward or 0.0,
            is_first=step.first(),
            is_last=step.last(),
            is_terminal=step.last() and step.discount == 0,
        )
        return {key: np.array(step.observation[key], np.float32) for key in self._keys} | result

    def close(self):
        self._env.close()


class Camera(Wrapper):
    """Adds an image, uint8 (size, size, 3): what a fixed camera of the simulation sees."""

    FAST_FLAGS = {'shadow': False, 'reflection': False}

    def __init__(self, env: Env, physics, camera: int, size: int, quality: str, key: str = 'image'):
        super().__init__(env)
        self._key, self._camera_id, self._size, self._quality = key, camera, size, quality
        self._camera = None
        self._attach(physics)

    def _attach(self, physics):
        """Look at a simulation from now on."""
        camera, size = self._camera_id, self._size
        if not 0 <= camera < physics.model.ncam:
            raise ConfigError(
                f'env.dmc.camera must be -1 or in 0..{physics.model.ncam - 1} for this domain, got'
                f' {camera}.'
            )
        # The model fixes the buffers when the graphics context is made, which happens with the
        # first frame.
        visual = physics.model.vis
        visual.global_.offwidth = max(visual.global_.offwidth, size)
        visual.global_.offheight = max(visual.global_.offheight, size)
        self._flags = {}
        if self._quality == 'fast':
            visual.quality.shadowsize = 0
            self._flags = self.FAST_FLAGS
        self._physics, self._camera = physics, None

    @property
    def obs_space(self):
        return {
            self._key: spaces.Box(0, 255, (self._size, self._size, 3), np.uint8),
            **self.env.obs_space,
        }

    def step(self, action):
        return {**self.env.step(action), self._key: self.render()}

    def render(self) -> np.ndarray:
        """The present frame in an array of its own."""
        if self._camera is None:
            from dm_control.mujoco import Camera as MujocoCamera

            # physics.render() would make a new scene for every frame.
            self._camera = MujocoCamera(self._physics, self._size, self._size, self._camera_id)
        return self._camera.render(render_flag_overrides=dict(self._flags)).copy()

    @property
    def renderer(self) -> str:
        """What OpenGL says it renders with, such as 'NVIDIA H200/PCIe/SSE2' or 'llvmpipe (...)';
        '' before the first frame.
        """
        if self._camera is None:
            return ''
        from OpenGL import GL

        with self._physics.contexts.gl.make_current() as context:
            return (context.call(GL.glGetString, GL.GL_RENDERER) or b'').decode()

    def close(self):
        self._camera = None
        self.env.close()


class ArmCamera(Camera):
    """A camera of an arm, whose simulation is compiled anew for every episode."""

    def __init__(self, env: Env, arm, *settings):
        self._arm = arm
        super().__init__(env, arm.physics, *settings)

    def render(self):
        if self._arm.physics is not self._physics:
            self._attach(self._arm.physics)
        return super().render()
