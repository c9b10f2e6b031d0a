"""The pipeline from Python, one call at a time: models, tasks, scores, evaluations."""
