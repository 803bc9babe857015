"""The contract of world models: whoever is in the table has what the agent asks for."""

import inspect

import pytest

from dreamer4 import worlds
from dreamer4.worlds import WORLDS, World, find


def asked():
    """Method -> parameter names, of the protocol."""
    methods = {k: v for k, v in vars(World).items() if inspect.isfunction(v) and k[0] != '_'}
    return {name: list(inspect.signature(method).parameters) for name, method in methods.items()}


@pytest.mark.parametrize('name', WORLDS)
def test_a_world_model_answers_everything_that_the_agent_asks(name):
    kind = find(name)
    for method, parameters in asked().items():
        found = inspect.signature(getattr(kind, method)).parameters
        assert list(found) == parameters, method
    assert kind.stages and all(isinstance(stage, str) for stage in kind.stages)
    assert {'value', 'policy'} <= kind.watched.keys(), 'also in the stages of value and policy'
    made_with = inspect.signature(kind).parameters
    assert list(made_with) == ['obs_space', 'tasks', 'actions', 'config', 'machine']


def test_the_contract_is_not_empty():
    assert {'begin', 'observe', 'features', 'losses', 'imagine', 'measure'} <= asked().keys()


def test_a_world_model_that_is_none_is_refused_with_those_there_are():
    with pytest.raises(ValueError, match="agent.world must be one of dreamer4.*; got 'dreamer5'"):
        find('dreamer5')


def test_nothing_of_a_world_model_is_imported_before_it_is_chosen(monkeypatch):
    monkeypatch.setitem(worlds.WORLDS, 'missing', 'nowhere:Nothing')
    with pytest.raises(ModuleNotFoundError):
        find('missing')
