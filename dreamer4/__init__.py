"""Dreamer 4 in PyTorch: tokenizer, shortcut-forcing dynamics, agent heads, imagination and PMPO (arXiv 2509.24527)."""

from pathlib import Path

__version__ = '0.1.0'


def configs_dir() -> Path:
    """The folder of the YAML files: inside an installed package, beside the packages in a source checkout."""
    inside = Path(__file__).parent / 'configs'
    return inside if inside.is_dir() else Path(__file__).parents[1] / 'configs'
