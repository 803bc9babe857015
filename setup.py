"""Packages dreamer4 and embodied; the YAML files of configs/ travel inside dreamer4."""

from pathlib import Path

from setuptools import find_packages, setup

EXTRAS = {
    # dm_control reads a field that mujoco 4 renamed
    'dmc': ['dm_control>=1.0.30', 'mujoco>=3.1,<4'],
    'atari': ['ale-py>=0.10'],
    'crafter': ['crafter'],
    'lpips': ['lpips', 'torchvision'],
    'video': ['imageio', 'imageio-ffmpeg'],
    'dev': ['pytest', 'hypothesis', 'matplotlib', 'ruff', 'setuptools', 'wheel'],
}

setup(
    name='dreamer4',
    version='0.1.0',
    description='Dreamer 4 that learns control online, from pixels, with one command',
    long_description=Path(__file__).with_name('README.md').read_text(),
    long_description_content_type='text/markdown',
    license='MIT',
    python_requires='>=3.11',
    packages=find_packages(include=['dreamer4', 'dreamer4.*', 'embodied', 'embodied.*'])
    + ['dreamer4.configs'],
    package_dir={'dreamer4.configs': 'configs'},
    package_data={'dreamer4.configs': ['*.yaml']},
    install_requires=[
        'torch>=2.11',
        'numpy',
        'gymnasium>=1.0',
        'ruamel.yaml',
        'safetensors',
        'cloudpickle',
        'tensorboard',
        'pillow',
    ],
    extras_require=EXTRAS,
    entry_points={'console_scripts': ['dreamer4 = dreamer4.main:main']},
)
