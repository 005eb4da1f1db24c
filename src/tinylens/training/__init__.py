"""Training: networks, curricula, time budgets, series of runs, tuning, the estimator."""
