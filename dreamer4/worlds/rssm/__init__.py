"""Recurrent state-space models (DreamerV1, DreamerV2, DreamerV3) behind the World protocol."""
