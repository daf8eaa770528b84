"""Pure mathematics: posteriors and their updates, the joint fit, the population, scoring. No I/O, no clock.

Nothing is imported here: who scores loads neither the solver nor SciPy.
"""
