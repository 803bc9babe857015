"""The rules of the house: who may import whom, what stays out of a process, what no file holds."""

import ast
import functools
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted([*ROOT.glob('embodied/**/*.py'), *ROOT.glob('dreamer4/**/*.py')])
TESTS = sorted(ROOT.glob('tests/**/*.py'))

# What a package may import besides the standard library and itself. '(lazy)': only inside a
# function, so that it is needed by use alone.
ALLOWED = {
    'embodied': {
        'numpy',
        'gymnasium',
        'ruamel',
        'safetensors',
        'cloudpickle',
        'PIL',
        'tensorboard (lazy)',
        'wandb (lazy)',
        'mlflow (lazy)',
        'imageio (lazy)',
        'imageio_ffmpeg (lazy)',
    },
    'embodied.convert': {
        'numpy',
        'gymnasium',
        'PIL',
        'av (lazy)',
        'h5py (lazy)',
        'pyarrow (lazy)',
    },
    'embodied.replay.importer': {
        'numpy',
        'PIL',
        'av (lazy)',
        'imageio (lazy)',
        'imageio_ffmpeg (lazy)',
    },
    'embodied.envs.atari': {'numpy', 'gymnasium', 'PIL', 'ale_py (lazy)'},
    'embodied.envs.crafter': {'numpy', 'gymnasium', 'PIL', 'crafter (lazy)'},
    'embodied.envs.minigrid': {'numpy', 'gymnasium', 'minigrid (lazy)'},
    'embodied.envs.memmaze': {'memory_maze (lazy)'},
    'embodied.envs.metaworld': {'gymnasium', 'metaworld (lazy)'},
    'embodied.envs.vizdoom': {'gymnasium', 'vizdoom (lazy)'},
    'embodied.envs.retro': {'stable_retro (lazy)'},
    'embodied.envs.procgen': {'numpy', 'gymnasium', 'procgen (lazy)'},
    'embodied.envs.craftax': {'numpy', 'gymnasium', 'jax (lazy)', 'craftax (lazy)'},
    'embodied.envs.brax': {'numpy', 'gymnasium', 'jax (lazy)', 'brax (lazy)'},
    'embodied.envs.dmlab': {'numpy', 'gymnasium', 'deepmind_lab (lazy)'},
    'embodied.envs.unity': {'numpy', 'gymnasium', 'mlagents_envs (lazy)'},
    'embodied.envs.dmc': {'numpy', 'gymnasium', 'dm_control (lazy)', 'OpenGL (lazy)'},
    'dreamer4': {'torch', 'numpy', 'gymnasium', 'einops', 'lpips (lazy)', 'huggingface_hub (lazy)'},
    'dreamer4.tensor_files': {'torch', 'numpy', 'PIL (lazy)', 'tensordict (lazy)'},
    'dreamer4.video': {'numpy', 'PIL'},
    'dreamer4.play': {'numpy', 'gymnasium'},
    'dreamer4.play.pages': {'websockets'},
    'dreamer4.play.server': {'websockets'},
    'dreamer4.doctor.probes': {'numpy', 'torch (lazy)', 'dm_control (lazy)', 'OpenGL (lazy)'},
    'dreamer4.report.figures': {'numpy', 'matplotlib (lazy)'},
    'dreamer4.nets': {'torch', 'einops'},
}

# Which modules of the package itself a module must not reach, directly or through others: the
# layers of the runtime.
BELOW = {
    'embodied.base': (
        'embodied.drive',
        'embodied.envs',
        'embodied.log',
        'embodied.run',
        'embodied.replay',
        'embodied.wrappers',
    ),
    'embodied.drive.worker': ('embodied.drive.driver', 'embodied.drive.pool'),
    'embodied.drive.group': ('embodied.drive.worker', 'embodied.drive.child'),
    'embodied.drive': (
        'embodied.run',
        'embodied.replay',
        'embodied.envs',
        'embodied.log',
        'embodied.config',
    ),
    'embodied.replay.chunk': (
        'embodied.replay.streams',
        'embodied.replay.selectors',
        'embodied.replay.shelf',
        'embodied.replay.replay',
    ),
    'embodied.replay': (
        'embodied.convert',
        'embodied.drive',
        'embodied.envs',
        'embodied.log',
        'embodied.run',
        'embodied.config',
    ),
    'embodied.convert': (
        'embodied.drive',
        'embodied.envs',
        'embodied.log',
        'embodied.run',
        'embodied.config',
    ),
    'embodied.log': (
        'embodied.drive',
        'embodied.envs',
        'embodied.replay',
        'embodied.run',
        'embodied.config',
    ),
    'embodied.wrappers': ('embodied.drive', 'embodied.run', 'embodied.replay'),
    'embodied.envs': ('embodied.drive', 'embodied.run', 'embodied.replay', 'embodied.config'),
    'embodied.run': ('embodied.envs', 'embodied.config', 'dreamer4'),
    'dreamer4.returns': ('dreamer4',),
    'dreamer4.scores': ('dreamer4.worlds', 'dreamer4.actor_critic', 'dreamer4.agent'),
    'dreamer4.actor_critic': ('dreamer4.worlds', 'dreamer4.agent'),
    'dreamer4.worlds': ('dreamer4.agent',),
    'dreamer4.worlds.dreamer4.dynamics': (
        'dreamer4.worlds.dreamer4.shortcut',
        'dreamer4.worlds.dreamer4.rollout',
        'dreamer4.heads',
    ),
    'dreamer4.worlds.dreamer4.shortcut': ('dreamer4.worlds.dreamer4.rollout',),
    'dreamer4.worlds.dreamer4.rollout': ('dreamer4.worlds.dreamer4.world', 'dreamer4.returns'),
}

# these know everything
WIRING = (
    'dreamer4.main',
    'dreamer4.parts',
    'dreamer4.experiment',
    'dreamer4.load',
    'dreamer4.pretrained',
    'dreamer4.card',
    'dreamer4.runs',
    'dreamer4.versions',
    'dreamer4.starts',
    'dreamer4.dream_env',
    'dreamer4.convert',
    'dreamer4.play.__main__',
    'dreamer4.play.game',
    'dreamer4.play.making',
    'dreamer4.play.record',
    'dreamer4.report',
    'dreamer4.report.command',
    'dreamer4.report.page',
    'dreamer4.report.figures',
    'dreamer4.__main__',
    'dreamer4.doctor.__main__',
    'dreamer4.doctor.checks',
    'dreamer4.doctor.probes',
    'dreamer4.doctor.system',
    'dreamer4.plan',
    'dreamer4.launch',
)
# What the rest of dreamer4 may know of embodied.
CONTRACTS = (
    'embodied',
    'embodied.base',
    'embodied.convert',
    'embodied.errors',
    'embodied.extras',
    'embodied.log.jsonl',
    'embodied.pictures',
    'embodied.tasks',
)


def name_of(path):
    return '.'.join(path.relative_to(ROOT).with_suffix('').parts).removesuffix('.__init__')


MODULES = {name_of(path): path for path in FILES}


@functools.cache
def imports(name):
    """(full dotted name, whether it is inside a function) of everything that a module imports."""
    path = MODULES[name]
    package = name.split('.') if path.name == '__init__.py' else name.split('.')[:-1]
    found = set()

    def visit(node, lazy):
        if isinstance(node, ast.Import):
            found.update((alias.name, lazy) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = '.'.join(
                package[: len(package) - node.level + 1] * bool(node.level)
                + ([node.module] if node.module else [])
            )
            found.update(
                (
                    (
                        f'{base}.{alias.name}'
                        if f'{base}.{alias.name}' in MODULES or not node.module
                        else base
                    ),
                    lazy,
                )
                for alias in node.names
            )
        for child in ast.iter_child_nodes(node):
            visit(child, lazy or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)))

    visit(ast.parse(path.read_text()), False)
    return frozenset(found)


def own(name, lazily=True):
    """Modules of ours that a module imports."""
    return {
        target
        for found, lazy in imports(name)
        if lazily or not lazy
        if (target := next((m for m in (found, found.rpartition('.')[0]) if m in MODULES), None))
        and target != name
    }


def reach(name):
    """Modules of ours that a module imports, directly or through others."""
    seen, todo = set(), [name]
    while todo:
        new = own(todo.pop()) - seen
        seen |= new
        todo += new
    return seen


def inside(name, package):
    return name == package or name.startswith(f'{package}.')


def rule(name):
    """The entry of ALLOWED that fits a module best."""
    return ALLOWED[max((package for package in ALLOWED if inside(name, package)), key=len)]


@pytest.mark.parametrize('name', MODULES)
def test_a_module_imports_only_what_its_package_may(name):
    allowed = rule(name)
    for found, lazy in imports(name):
        top = found.partition('.')[0]
        if top in sys.stdlib_module_names or top in ('embodied', 'dreamer4'):
            continue
        assert top in allowed or lazy and f'{top} (lazy)' in allowed, (
            f'{name} imports {found}; allowed: {sorted(allowed)}'
        )


def test_the_runtime_knows_nothing_of_the_agent():
    for name in MODULES:
        if inside(name, 'embodied'):
            assert not any(inside(found, 'dreamer4') for found, _ in imports(name)), name


def test_the_agent_knows_the_runtime_only_by_its_contracts():
    for name in MODULES:
        if inside(name, 'dreamer4') and name not in WIRING:
            known = {target for target in own(name) if inside(target, 'embodied')}
            assert known <= set(CONTRACTS), f'{name} imports {sorted(known - set(CONTRACTS))}'


def test_nobody_imports_main():
    for name in MODULES:
        assert 'dreamer4.main' not in own(name), name


def test_world_models_know_neither_each_other_nor_who_learns_in_them():
    worlds = {name for name in MODULES if inside(name, 'dreamer4.worlds')} - {'dreamer4.worlds'}
    kind = lambda name: name.split('.')[2]
    for name in worlds:
        found = own(name)
        assert 'dreamer4.actor_critic' not in found and 'dreamer4.agent' not in found, name
        others = {target for target in found & worlds if kind(target) != kind(name)}
        assert not others, f'{name} imports {others}'
    for name in ('dreamer4.agent', 'dreamer4.actor_critic'):
        assert not own(name) & worlds, f'{name} imports {own(name) & worlds}'


def test_networks_import_nothing_but_each_other():
    for name in MODULES:
        if inside(name, 'dreamer4.nets'):
            assert all(inside(target, 'dreamer4.nets') for target in own(name)), (name, own(name))


@pytest.mark.parametrize('name, forbidden', BELOW.items())
def test_layers_reach_only_downwards(name, forbidden):
    assert name in MODULES
    for module in (module for module in MODULES if inside(module, name)):
        for target in reach(module):
            assert not any(
                inside(target, above) and not inside(target, name) for above in forbidden
            ), f'{module} reaches {target}'


def test_imports_have_no_cycles():
    graph = {}
    for name in MODULES:
        # Reaching a package's module runs its __init__, which `from .. import x` names; that one
        # alone is no cycle.
        graph[name] = {target for target in own(name, lazily=False) if not inside(name, target)}
    try:
        tuple(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f'These modules import each other: {" -> ".join(error.args[1])}')


def test_importing_the_whole_runtime_loads_neither_torch_nor_any_suite():
    names = [name for name in MODULES if inside(name, 'embodied')]
    heavy = (
        'torch',
        'dreamer4',
        'dm_control',
        'mujoco',
        'ale_py',
        'crafter',
        'tensorboard',
        'matplotlib',
        'av',
        'h5py',
        'pyarrow',
    )
    program = (
        f'import importlib, sys\nfor name in {names!r}: importlib.import_module(name)\nprint([name'
        f' for name in {heavy!r} if name in sys.modules])'
    )
    output = subprocess.run(
        [sys.executable, '-c', program], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert output.strip() == '[]'


def test_names_say_what_a_file_is_about():
    for name in MODULES:
        assert not {'utils', 'util', 'common', 'helpers', 'misc', 'tools'} & set(name.split('.')), (
            name
        )


@pytest.mark.parametrize('path', [*FILES, *TESTS], ids=lambda path: str(path.relative_to(ROOT)))
def test_every_file_says_what_lives_in_it(path):
    text = path.read_text()
    assert not text.strip() or ast.get_docstring(ast.parse(text)), f'{path} has no docstring'


LIMITS = {  # lines, decorators and docstrings included
    'file': 400,
    'class': 300,
    'function': 60,
}
SOURCES = sorted([*FILES, *ROOT.glob('benchmarks/**/*.py')])


def sizes(path):
    """(kind, name, lines) of a file and of every class and function in it."""
    text = path.read_text()
    yield 'file', path.name, len(text.splitlines())
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            kind = 'class' if isinstance(node, ast.ClassDef) else 'function'
            yield kind, node.name, node.end_lineno - node.lineno + 1


@pytest.mark.parametrize('path', SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_classes_and_functions_have_a_size_that_can_be_read(path):
    large = [(kind, name, lines) for kind, name, lines in sizes(path) if lines > LIMITS[kind]]
    assert not large


def test_nothing_is_left_for_later():
    words = ('TO' + 'DO', 'FIX' + 'ME', 'XX' + 'X', 'HA' + 'CK')
    for path in [*FILES, *TESTS]:
        text = path.read_text()
        assert not [word for word in words if word in text], path


TALKING = ('embodied.drive.worker', 'embodied.drive.child', 'embodied.drive.group')


def test_nothing_loads_pickles_of_others():
    """Workers talk to their own parent in pickles; no file is ever read as one."""
    for name, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                call = ast.unparse(node.func)
                arguments = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                assert arguments.get('allow_pickle', 'False') == 'False', (name, node.lineno)
                assert call != 'torch.load' or arguments.get('weights_only') == 'True', (
                    name,
                    node.lineno,
                )
                if call in ('np.load', 'numpy.load'):
                    assert arguments.get('allow_pickle') == 'False', (name, node.lineno)
                if call in (
                    'pickle.load',
                    'pickle.loads',
                    'pickle.Unpickler',
                    'cloudpickle.load',
                    'cloudpickle.loads',
                    'eval',
                    'exec',
                ):
                    assert name in TALKING and call == 'pickle.loads', (name, node.lineno)
