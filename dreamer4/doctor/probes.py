"""What a process of its own tries out, for it may end in a crash: torch, rendering, one env.

    python -m dreamer4.doctor.probes NAME [ARGUMENT]

Prints one line of JSON.
"""

import json
import os
import sys
import time
from pathlib import Path

import numpy as np

SOFTWARE = ('llvmpipe', 'softpipe', 'swrast', 'osmesa', 'software')
SECONDS = 1.0  # that a rate is measured


def torch_facts() -> dict:
    """Version, build and devices of torch; whether the device computes, in bfloat16 too."""
    import torch

    out = {'version': torch.__version__, 'cuda_build': torch.version.cuda, 'devices': []}
    if not torch.cuda.is_available():
        return out
    for index in range(torch.cuda.device_count()):
        found = torch.cuda.get_device_properties(index)
        out['devices'].append({'name': found.name, 'gb': round(found.total_memory / 1e9, 1)})
    x = torch.ones(64, 64, device='cuda')
    out['computes'] = bool((x @ x)[0, 0].item() == 64)
    out['bf16'] = torch.cuda.is_bf16_supported()
    out['graphs'] = _captures(x)
    return out


def _captures(x) -> bool:
    """Whether a recorded product can be played back."""
    import torch

    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream()
    with torch.cuda.stream(stream):
        _ = x @ x
    torch.cuda.current_stream().wait_stream(stream)
    with torch.cuda.graph(graph):
        y = x @ x
    graph.replay()
    return bool(y[0, 0].item() == 64)


def threads(count: str) -> dict:
    """Passes a second of a network as small as that of the pixel tasks, with so many threads."""
    import torch

    torch.set_num_threads(int(count))
    layers = [torch.nn.Linear(64, 256), torch.nn.SiLU(), torch.nn.Linear(256, 64)]
    net, x = torch.nn.Sequential(*layers, *layers), torch.randn(12, 12, 8, 64)
    for _ in range(3):
        net(x).sum().backward()
    return {'rate': _rate(lambda: net(x).sum().backward())}


def compiles() -> dict:
    """Whether torch compiles a function here."""
    os.environ['TORCHINDUCTOR_COMPILE_THREADS'] = '1'  # else processes that import torch as well
    import torch

    with torch.no_grad():
        return {'ok': bool(torch.compile(lambda x: x * 2 + 1)(torch.ones(8))[0].item() == 3)}


def render() -> dict:
    """Frames a second of a simulated cart-pole at 64 x 64, by the backend MUJOCO_GL, and whose."""
    from dm_control import suite

    env = suite.load('cartpole', 'balance')
    draw = lambda: env.physics.render(64, 64)
    draw()
    renderer = ''
    try:
        from OpenGL import GL

        renderer = (GL.glGetString(GL.GL_RENDERER) or b'').decode()
    except Exception:  # some backends hold no context outside of a call
        pass
    soft = any(word in renderer.lower() for word in SOFTWARE)
    return {'rate': _rate(draw), 'renderer': renderer, 'software': soft}


def env(task: str) -> dict:
    """Make an env and take a step."""
    from embodied import envs
    from embodied.base import RandomAgent
    from embodied.config import configs_dir, parse

    config = parse([], configs_dir(Path(__file__).parents[1])).env.to_dict()
    made = envs.make(task, config, 0)
    first = {
        k: v[0] for k, v in RandomAgent(made.act_space, 0).policy({}, {'is_first': [1]})[1].items()
    }
    for reset in (True, False):
        made.step(first | {'reset': np.bool_(reset)})
    made.close()
    return {'ok': True}


def _rate(work) -> float:
    begun, count = time.perf_counter(), 0
    while time.perf_counter() - begun < SECONDS:
        work()
        count += 1
    return round(count / (time.perf_counter() - begun), 1)


PROBES = {f.__name__: f for f in (torch_facts, threads, compiles, render, env)}


def main(argv: list[str]) -> int:
    """Run one probe; what it prints last is its answer, whatever libraries print before."""
    if not argv or argv[0] not in PROBES:
        print(f'usage: python -m dreamer4.doctor.probes {"|".join(PROBES)} [ARGUMENT] [--help]')
        return int('--help' not in argv)
    print(json.dumps(PROBES[argv[0]](*argv[1:])))
    return 0


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
