"""Training: a run directory, phases of neurons and dendrites, checkpoints, teachers, and a report."""
