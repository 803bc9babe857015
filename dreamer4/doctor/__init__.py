"""What this machine can do, and what is missing: `python -m dreamer4.doctor`."""
