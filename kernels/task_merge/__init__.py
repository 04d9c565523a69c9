"""The task_merge kernel; its contract is spec.py."""
