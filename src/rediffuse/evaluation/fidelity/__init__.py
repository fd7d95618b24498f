"""Fidelity and diversity of made pictures beside real ones, and near-duplicates between two sets."""
