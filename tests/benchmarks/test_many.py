"""The table of one agent for several tasks beside an agent for each."""

from benchmarks.many import share, table


def run(tasks, returns):
    told = {task: {'mean': mean, 'ci95': 0.1, 'episodes': 9} for task, mean in returns.items()}
    return {'tasks': tasks, 'seed': 0, 'frames': 1000, 'minutes': 2.0, 'returns': told}


def test_a_share_is_counted_from_random_play():
    assert share('pixel_catch', 1.0, 1.0) == 1 and share('pixel_catch', -0.75, 1.0) == 0
    assert share('pixel_catch', 0.0, -0.75) is None and share('dummy', 1.0, 1.0) is None


def test_every_task_is_compared_with_its_own_agent():
    both = run('pixel_catch,pixel_memory', {'pixel_catch': 0.125, 'pixel_memory': 1.0})
    lines = table([both, run('pixel_catch', {'pixel_catch': 1.0})]).splitlines()[2:]
    assert '| 50% |' in lines[0] and '|  |' in lines[1] and '|  |' in lines[2]
