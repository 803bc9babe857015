"""Two machines on one: network namespaces joined by a virtual cable, a torchrun in each, which meet
over it. One machine is killed and comes back, and the run must go on.

    python -m benchmarks.nodes [--steps 400] [--after 1]            # root, Linux with `ip`; minutes
    python -m benchmarks.nodes --steps 40000 --after 12000 --flags --run.save_every 30   # learns

Each node has an address of its own and sees the other over the cable alone (gloo, c10d rendezvous);
the disk is shared, as a cluster's is. When a checkpoint of so many decisions stands, every process
of node 1 is killed (SIGKILL), and its torchrun is started again a little later; that of node 0
restarts its processes when they miss the other's. Then the run ends in order, and one process
evaluates its checkpoint. Counters, returns and how often it went on are told, and whether the
checkpoint holds the trees of both ranks. Writes benchmarks/results/nodes.json.
"""

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from embodied.checkpoint import Checkpoint
from embodied.errors import ConfigError
from embodied.log.jsonl import read_lines

from .command import start, write
from .learning import RESULTS, commit, machine

NODES = ('d4node0', 'd4node1')
CABLE = ('d4veth0', 'd4veth1')
ADDRESSES = ('10.213.77.1', '10.213.77.2')
PORT = 29531
# without the first, a torchrun that is new cannot meet one that is not: it waits for an address
# that the other has told before (torch 2.13)
ENV = {'TORCH_DISABLE_SHARE_RDZV_TCP_STORE': '1', 'OMP_NUM_THREADS': '1'}
RUN = (
    '--configs pixel --task pixel_catch --driver.parallel false --logger.outputs terminal jsonl'
    ' --machine.threads 1 --machine.device cpu --run.save_every 3 --run.report_every 0'
).split()
PATIENCE = 7200.0  # seconds for whatever is waited for
TENTHS = 10  # parts of a run whose mean returns are told
AWAY = 40.0  # seconds that a node takes to come back; before 15 are over torchrun counts it in


def ip(*words: str) -> None:
    """Run the command of that name."""
    try:
        subprocess.run(['ip', *words], check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        told = getattr(error, 'stderr', '') or error
        raise ConfigError(f'ip {" ".join(words)}: {told}; this needs root and iproute2') from error


@contextlib.contextmanager
def network() -> Iterator[None]:
    """Two namespaces and a cable, removed at the end."""
    with contextlib.ExitStack() as stack:
        for name in NODES:
            ip('netns', 'add', name)
            stack.callback(ip, 'netns', 'del', name)
        ip('link', 'add', CABLE[0], 'type', 'veth', 'peer', 'name', CABLE[1])
        for name, end, address in zip(NODES, CABLE, ADDRESSES):
            ip('link', 'set', end, 'netns', name)
            ip('-n', name, 'addr', 'add', f'{address}/24', 'dev', end)
            for device in ('lo', end):
                ip('-n', name, 'link', 'set', device, 'up')
        yield


def node(number: int, logdir: Path, flags: list[str], log: Path) -> subprocess.Popen:
    """The torchrun of a node, in a process group of its own."""
    meet = f'--rdzv-backend c10d --rdzv-endpoint {ADDRESSES[0]}:{PORT} --rdzv-id nodes'
    # torchrun knows by the name of the machine who is the host, and both have one name
    meet += f' --rdzv-conf is_host={str(not number).lower()}'
    how = f'--nnodes 2 --nproc-per-node 1 --max-restarts 5 --local-addr {ADDRESSES[number]} {meet}'
    command = ['ip', 'netns', 'exec', NODES[number], sys.executable, '-m', 'torch.distributed.run']
    command += [*how.split(), '-m', 'dreamer4.main', *RUN, '--logdir', str(logdir), *flags]
    env = os.environ | ENV | {'GLOO_SOCKET_IFNAME': CABLE[number]}
    with open(log, 'a') as file:
        return subprocess.Popen(command, stdout=file, stderr=file, env=env, start_new_session=True)


def wait(for_what: str, done, *nodes: subprocess.Popen) -> None:
    """Until done(), which must come before a node ends."""
    end = time.monotonic() + PATIENCE
    while not done():
        if time.monotonic() > end or any(node.poll() is not None for node in nodes):
            raise SystemExit(f'nodes: {for_what} did not come')
        time.sleep(0.2)


def kill(number: int, process: subprocess.Popen) -> None:
    """A node that loses its power: every process in its namespace."""
    listed = subprocess.run(['ip', 'netns', 'pids', NODES[number]], capture_output=True, text=True)
    for pid in map(int, listed.stdout.split()):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--steps', type=int, default=400, help='decisions of the run')
    parser.add_argument('--after', type=int, default=1, help='decisions before a node is killed')
    parser.add_argument('--episodes', type=int, default=20, help='of the evaluation')
    parser.add_argument('--flags', nargs=argparse.REMAINDER, default=[], help='of dreamer4.main')
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        logdir, begun = Path(folder) / 'run', time.monotonic()
        logs = [Path(folder) / f'node{number}.txt' for number in (0, 1)]
        flags = ['--run.steps', str(args.steps), *args.flags]
        stack.enter_context(network())
        nodes = [node(number, logdir, flags, logs[number]) for number in (0, 1)]
        stack.callback(lambda: [kill(number, one) for number, one in enumerate(nodes)])
        try:
            wait('a checkpoint', lambda: saved(logdir).get('step', 0) >= args.after, *nodes)
            kept = saved(logdir)
            print(f'killing node 1, the checkpoint is at {kept}', flush=True)
            kill(1, nodes[1])
            time.sleep(AWAY)
            nodes[1] = node(1, logdir, flags, logs[1])
            wait('the end', lambda: all(one.poll() is not None for one in nodes))
        finally:
            if any(one.poll() != 0 for one in nodes):
                print(*(log.read_text()[-3000:] for log in logs if log.exists()), sep='\n')
        found = {'killed_at': kept, 'statuses': [one.poll() for one in nodes]}
        found |= told(logdir, args.steps) | {'minutes': (time.monotonic() - begun) / 60}
        found['evaluation'] = evaluation(logdir, args.episodes)
    found |= {'flags': args.flags, 'machine': machine(), 'commit': commit()}
    write(RESULTS / 'nodes.json', found)
    print(json.dumps(found, indent=1))


def saved(logdir: Path) -> dict[str, int]:
    """Counters of the newest checkpoint; none before there is one."""
    saves = Checkpoint(logdir / 'ckpt', 1).saves()
    return json.loads((saves[-1] / 'counters.json').read_text()) if saves else {}


def told(logdir: Path, steps: int) -> dict:
    """How the run went: mean returns of each tenth of its decisions, None where none ended."""
    save = Checkpoint(logdir / 'ckpt', 1).saves()[-1]
    scores = [(x['step'], x['score']) for x in read_lines(logdir / 'scores.jsonl')]
    part = lambda n: [
        score for step, score in scores if n * steps < TENTHS * step <= (n + 1) * steps
    ]
    return {
        'counters': saved(logdir),
        'scores': len(scores),
        'returns': [float(np.mean(x)) if (x := part(n)) else None for n in range(TENTHS)],
        'continued': (logdir / 'events.log').read_text().count('Continuing'),
        'trees_of_both_ranks': (save / 'replay-rank001.json').exists(),
    }


def evaluation(logdir: Path, episodes: int) -> dict:
    """Mean return and its interval, by one process."""
    command = [sys.executable, '-m', 'dreamer4.main', '--script', 'eval_only', '--from_checkpoint']
    command += [str(logdir), '--eval.episodes', str(episodes), '--machine.device', 'cpu']
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    found = json.loads((logdir / 'eval' / 'eval.json').read_text())
    return {key: found[key] for key in ('mean', 'ci95', 'episodes')}


if __name__ == '__main__':
    start(main)
