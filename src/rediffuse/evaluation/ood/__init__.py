"""Unknown inputs: scores that fall where a classifier has not learned anything, and how well they tell."""
