"""One tree of seeds. Every random stream of a run (env 3, replay, agent, ...) is a named child of
the run's one seed, so that streams are independent of each other and adding one moves no other.
"""

import hashlib

import numpy as np

from .errors import ConfigError


def derive(seed: int, name: str, index: int = 0) -> int:
    """Seed of the stream `name` number `index` of a run.

    Args:
      seed: the run's seed, any integer >= 0.
      name: what the stream is for: 'env', 'eval', 'replay', 'agent', ...
      index: which one of several equal streams, >= 0.

    Returns:
      An integer in [0, 2**63), the same on every machine and in every process.

    Raises:
      ConfigError: seed or index is negative.
    """
    if seed < 0 or index < 0:
        raise ConfigError(
            f'A seed and an index must be >= 0; got seed {seed}, index {index} for the stream'
            f' {name!r}.'
        )
    # The name enters as a fixed number of words: with a variable number, (name, index) pairs could
    # spell the same key.
    words = np.frombuffer(hashlib.sha256(name.encode()).digest()[:16], '<u4')
    sequence = np.random.SeedSequence(
        int(seed), spawn_key=(*(int(word) for word in words), int(index))
    )
    return int(sequence.generate_state(1, np.uint64)[0]) >> 1
