"""Training, checkpoints and the command-line programs' shared parts."""
