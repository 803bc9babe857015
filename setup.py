"""Which packages there are; everything else about the distribution is in pyproject.toml."""

from setuptools import find_packages, setup

setup(
    # the YAML files of configs/ travel inside dreamer4, as a package that find_packages cannot see
    packages=find_packages(include=['dreamer4', 'dreamer4.*', 'embodied', 'embodied.*'])
    + ['dreamer4.configs'],
    package_dir={'dreamer4.configs': 'configs'},
    package_data={
        'dreamer4': ['py.typed'],
        'dreamer4.play': ['page/*'],
        'embodied': ['py.typed'],
        'dreamer4.configs': ['*.yaml'],
    },
)
