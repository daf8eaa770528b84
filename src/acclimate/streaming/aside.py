"""Beside the loop: what a stream has refused, and what its store is to forget."""

from collections.abc import Sequence
from contextlib import closing

from acclimate.events.streams import DeadLetters, open_stream
from acclimate.project import Project
from acclimate.publish.stores import open_store
from acclimate.publish.stores.forgetting import Forgotten
from acclimate.publish.stores.forgetting import forget as forget_in
from acclimate.streaming.making import entity_column, section_of, store_of


def refused(project: Project) -> dict[str, int]:
    """How many records the project's stream has refused, by reason, the most frequent first.

    Raises:
        ConfigError: the project has no stream.
    """
    return DeadLetters(section_of(project).refused).counts()


def send_again(project: Project, *, reason: str | None = None, space: str = "") -> int:
    """Append refused records to the stream again, all that wait or those of one reason; how many.

    Those that one ``space`` alone has refused are sent only where it is named: other spaces that have learned them
    tell them by their ids, if events have any.

    Raises:
        ConfigError: the project has no stream.
        OutputError: the stream does not take them.
    """
    section = section_of(project)
    with closing(open_stream(section.source, partitions=section.partitions)) as stream:
        return DeadLetters(section.refused).replay(stream, reason=reason, space=space)


def forget(project: Project, entity: str, ids: Sequence[str]) -> Forgotten:
    """Remove what the project's store holds of some entities, in all spaces and partitions.

    Raises:
        ConfigError: the project has no store, or no such entity.
        OutputError: the store cannot be reached.
    """
    column = entity_column(project.events.schema, entity)
    with closing(open_store(store_of(project))) as store:
        return forget_in(store, column, ids)
