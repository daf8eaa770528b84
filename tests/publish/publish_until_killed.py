"""Publishes and promotes without end: a process to be killed. Argument: the folder of the spaces."""

import os
import sys

from sample_spaces import made, promote, saved

from acclimate.publish import Spaces

spaces = Spaces(sys.argv[1], who="doomed")
os.write(1, b"ready\n")
seed = 0
while True:
    seed += 1
    space = spaces.publish(made(), saved(seed, 20_000))
    promote(spaces, space)
    spaces.pin("reader", space)
    if len(spaces.state().known) > 3:
        spaces.retire(spaces.state().known[0].space)
        spaces.prune()
