"""Dreamer 4 in PyTorch: tokenizer, shortcut-forcing dynamics, agent heads, imagination and PMPO
(arXiv 2509.24527).
"""

__version__ = '0.1.0'
