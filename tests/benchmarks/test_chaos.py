"""How the lives of the chaos benchmark end."""

import signal
import sys

from benchmarks import chaos_lives


def test_a_life_hears_sighup_where_the_benchmark_itself_does_not(tmp_path):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup leaves it
    try:
        program = 'import signal; print(signal.getsignal(signal.SIGHUP).name)'
        log = tmp_path / 'log'
        life = chaos_lives.start([sys.executable, '-c', program], 'file', log, 'token')
        assert life.wait() == 0
    finally:
        signal.signal(signal.SIGHUP, before)
    assert log.read_text().split() == ['SIG_DFL']
