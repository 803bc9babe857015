"""One file per script: train (and train_eval), evaluate, offline, collect; session.py is what they
share.
"""

from .collect import collect
from .evaluate import EvalConfig, eval_only, evaluate
from .offline import offline
from .session import Counters, RunConfig, Setup, load_agent
from .train import train

__all__ = [
    'Counters',
    'EvalConfig',
    'RunConfig',
    'Setup',
    'collect',
    'eval_only',
    'evaluate',
    'load_agent',
    'offline',
    'train',
]
