"""Sets of tasks by name, and lists of tasks: --task dmc18, --task dmc_walker_walk,pixel_reach."""

from ..errors import ConfigError
from ..published import REFERENCES

DMC = (
    'acrobot_swingup ball_in_cup_catch cartpole_balance cartpole_balance_sparse cartpole_swingup'
    ' cartpole_swingup_sparse cheetah_run finger_spin finger_turn_easy finger_turn_hard hopper_hop'
    ' hopper_stand pendulum_swingup reacher_easy reacher_hard walker_run walker_stand walker_walk'
)
METAWORLD = (
    'assembly basketball bin-picking box-close button-press-topdown button-press-topdown-wall'
    ' button-press button-press-wall coffee-button coffee-pull coffee-push dial-turn disassemble'
    ' door-close door-lock door-open door-unlock drawer-close drawer-open faucet-close faucet-open'
    ' hammer hand-insert handle-press-side handle-press handle-pull-side handle-pull lever-pull'
    ' peg-insert-side pick-place-wall pick-out-of-hole reach push-back push pick-place plate-slide'
    ' plate-slide-side plate-slide-back plate-slide-back-side peg-unplug-side soccer stick-push'
    ' stick-pull push-wall reach-wall shelf-place sweep-into sweep window-open window-close'
)


def of_suite(suite: str, names) -> tuple[str, ...]:
    """Tasks of a suite."""
    return tuple(f'{suite}_{name}' for name in names)


# name -> tasks: those that the published scores of a suite are of
SETS = {
    'pixel3': of_suite('pixel', ('catch', 'reach', 'memory')),
    'dmc18': of_suite('dmc', DMC.split()),  # DreamerV3's from state
    'dmc20': of_suite('dmc', [*DMC.split(), 'quadruped_run', 'quadruped_walk']),  # from pixels
    'metaworld50': of_suite('metaworld', METAWORLD.split()),  # MT50: Yu et al. 2019
    'atari26': of_suite('atari', REFERENCES['atari']),
    'procgen16': of_suite('procgen', REFERENCES['procgen']),
    'mujoco4': of_suite('mujoco', REFERENCES['mujoco']),
}


def members(task: str) -> tuple[str, ...]:
    """The tasks that --task names: one, several with commas between them, or a set by its name.

    Raises:
      ConfigError: one is named twice, or an entry is empty.
    """
    if ',' not in task and task not in SETS:
        return (task,)
    found: list[str] = []
    for entry in task.split(','):
        found += SETS.get(entry.strip(), (entry.strip(),))
    if '' in found:
        raise ConfigError(f'--task {task!r} has an empty entry; name tasks with one comma between.')
    if twice := sorted({name for name in found if found.count(name) > 1}):
        raise ConfigError(f'--task {task!r} names {", ".join(twice)} more than once.')
    return tuple(found)
