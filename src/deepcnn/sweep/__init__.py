"""Many trainings at once, which differ in settings and seeds: plan, run and choose."""
