"""Builds feature files from video clips, from CMU's features, or from the user's own arrays."""
