"""The project file: one YAML file describes a recommender, every command reads it.

Environment variables (``${NAME}``, ``${NAME:-default}``) expand in every text, relative paths start at the file's
folder, and ``key=value`` overrides go on top.
"""

from acclimate.project.load import load_project, parse_project
from acclimate.project.sections import (
    ArmSection,
    EventsSection,
    Project,
    PublishSection,
    ReplaySection,
    StreamSection,
)
from acclimate.project.variants import ProjectFile, set_options

__all__ = [
    "ArmSection",
    "EventsSection",
    "Project",
    "ProjectFile",
    "PublishSection",
    "ReplaySection",
    "StreamSection",
    "load_project",
    "parse_project",
    "set_options",
]
