"""Compiled loops: arrays in, arrays out, each with a NumPy twin in the tests. Imported by who runs them."""
