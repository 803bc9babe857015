"""Playing in a dream with a browser: `python -m dreamer4.play LOGDIR`."""
