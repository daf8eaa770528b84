"""The same work by acclimate and by others, in turns and in one process: ``python -m benchmarks.peers``."""
