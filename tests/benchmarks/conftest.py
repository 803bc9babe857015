"""One torch thread: the networks of these tests are so small that waking a second one costs more
than it brings.
"""

import torch

torch.set_num_threads(1)
