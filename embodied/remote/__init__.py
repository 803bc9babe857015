"""An env on another machine, or a robot at its own pace: server.py serves it over a socket, and
embodied.envs.remote is its client, which the driver treats as any other env.
"""
