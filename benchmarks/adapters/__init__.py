"""Public Dreamer 4 code behind the requests of peer_dreamer4.py, a file for each repository.

An adapter builds the peer's own classes with the same shapes and calls its own losses; nothing of a
peer is kept here. It has `tokenizer_net`, `dynamics_net`, and a method for each of the requests
tokenizer, dynamics and generate.
"""
