"""The laboratory of ION: synthetic scenes, studies of many trainings, and reports."""
