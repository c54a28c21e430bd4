"""Training: starting a run, choosing how it computes, the loop, the step, the run's files."""
