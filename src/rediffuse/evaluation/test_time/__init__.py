"""Classifiers asked several times: ensembles and adaptation at test time."""
