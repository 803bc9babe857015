"""Looks at this machine and says what works, what does not, and the command that mends it.

python -m dreamer4.doctor [--logdir DIR] [--json]
"""

import argparse
import json
import sys
from pathlib import Path

from embodied.console import steady

from .checks import Finding, examine, fit
from .system import System


def main(argv: list[str] | None = None, system: System | None = None) -> int:
    """Print the findings; 0 where all that `make train` needs is there, else 1."""
    parser = argparse.ArgumentParser(
        prog='python -m dreamer4.doctor',
        description=__doc__.split('\n\n')[0],
        epilog='Exit status 1: something that `make train` needs fails.',
    )
    parser.add_argument('--logdir', type=Path, default=Path('logdir'), help='where runs will go')
    parser.add_argument('--json', action='store_true', help='one JSON object in place of the lines')
    args = parser.parse_args(argv)
    with steady(patience=None):
        findings = []
        for finding in examine(system or System(), args.logdir):
            findings.append(finding)
            if not args.json:
                print(line(finding), flush=True)
        fine = fit(findings)
        if args.json:
            print(json.dumps({'fit': fine, 'findings': [f._asdict() for f in findings]}, indent=1))
        else:
            print('Fit to train.' if fine else 'Not fit to train: mend what fails.')
    return int(not fine)


def line(finding: Finding) -> str:
    """A finding for a terminal."""
    text = f'{finding.state:<4}  {finding.name:<15} {finding.words}'
    return f'{text}\n{"":22}mend: {finding.mend}' if finding.mend else text


if __name__ == '__main__':
    sys.exit(main())
