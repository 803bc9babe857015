"""One file per script: train (and train_eval), evaluate, compare, offline, collect; session.py is
what they share, setup.py what they are told.
"""

from .collect import collect
from .compare import compare
from .evaluate import EvalConfig, eval_only, evaluate
from .offline import offline
from .session import load_agent
from .setup import Counters, RunConfig, Setup
from .train import train

__all__ = [
    'Counters',
    'EvalConfig',
    'RunConfig',
    'Setup',
    'collect',
    'compare',
    'eval_only',
    'evaluate',
    'load_agent',
    'offline',
    'train',
]
