"""Trees of torch tensors <-> trees of numpy arrays, so that checkpoints hold plain arrays and
JSON.
"""

import numpy as np
import torch


def pack_tree(tree):
    """Nested dicts with tensors -> the same with numpy arrays (copies); other leaves stay."""
    if isinstance(tree, dict):
        return {str(k): pack_tree(v) for k, v in tree.items()}
    if isinstance(tree, torch.Tensor):
        return tree.detach().cpu().numpy().copy()
    return tree


def unpack_tree(tree):
    """Inverse of pack_tree; tensors own their memory."""
    if isinstance(tree, dict):
        return {k: unpack_tree(v) for k, v in tree.items()}
    if isinstance(tree, np.ndarray):
        return torch.from_numpy(tree.copy())
    return tree
