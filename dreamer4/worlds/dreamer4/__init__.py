"""Dreamer 4's world model: a tokenizer, a transformer that denoises the next latents, and heads.

Read it in this order: world.py, tokenizer.py, dynamics.py, shortcut.py, rollout.py.
"""
