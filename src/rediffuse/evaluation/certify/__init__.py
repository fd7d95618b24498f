"""Certified accuracy: radii within which no perturbation changes a smoothed classifier's answer."""
