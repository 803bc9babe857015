"""Networks that know shapes and nothing of the agent: layers, attention, the block-causal
transformer, token layouts, output distributions.
"""
