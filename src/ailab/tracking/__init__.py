"""Tracking: jobs and trainings in notebooks as runs of the lab's MLflow."""
