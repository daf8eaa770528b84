"""``python -m acclimate``: the command, for those who start it by a module, such as torchrun."""

from acclimate.cli import main

main()
