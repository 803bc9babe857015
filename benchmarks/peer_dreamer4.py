"""Public Dreamer 4 code, measured by request; started by benchmarks/peers.py in a process of its
own, never imported by it.

    python benchmarks/peer_dreamer4.py NAME CHECKOUT SHAPES

SHAPES is the JSON of benchmarks.peers.SHAPES, with device, threads and whether to compile. Reads
one request a line (parameters, tokenizer, dynamics, generate) and answers each with one JSON
number: millions of parameters of the tokenizer and of the dynamics, or seconds of one call. The
adapters of the peers stand in adapters/.
"""

import argparse
import importlib
import json
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import torch

# name -> module and class; imported in this process alone, where a peer's modules may have any name
ADAPTERS = {
    'nicklashansen': 'nicklashansen:Hansen',
    'lucidrains': 'lucidrains:Lucidrains',
    'vijayabhaskar': 'vijayabhaskar:Vijayabhaskar',
    'machines-in-motion': 'machines_in_motion:MachinesInMotion',
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('name', choices=sorted(ADAPTERS))
    parser.add_argument('checkout', type=Path, help='of its repository')
    parser.add_argument('shapes', type=json.loads, help='JSON')
    args = parser.parse_args()
    name, checkout, shapes = args.name, args.checkout, SimpleNamespace(**args.shapes)
    torch.set_num_threads(shapes.threads)
    out, sys.stdout = sys.stdout, sys.stderr  # peers print
    module, _, kind = ADAPTERS[name].partition(':')
    peer = getattr(importlib.import_module(f'adapters.{module}'), kind)(checkout, shapes)
    if shapes.compiled:
        # those without a cache generate from a history that grows
        torch._dynamo.config.recompile_limit = 64
        for net in (peer.tokenizer_net, peer.dynamics_net):
            net.compile()
    count = lambda net: sum(p.numel() for p in net.parameters()) / 1e6
    for line in sys.stdin:
        request, *rest = line.split()
        if request == 'parameters':
            answer = count(getattr(peer, f'{("tokenizer", "dynamics")[int(float(rest[0]))]}_net'))
        else:
            begin = time.perf_counter()
            with torch.autocast('cuda', torch.bfloat16, enabled=shapes.device == 'cuda'):
                getattr(peer, request)()
            if shapes.device == 'cuda':
                torch.cuda.synchronize()
            answer = time.perf_counter() - begin
        print(json.dumps(answer), file=out, flush=True)


if __name__ == '__main__':
    main()
