"""Spaces behind a URL: an S3 server on a port of its own, and file systems that cannot say who was first."""

import shutil
import threading
import zlib
from collections.abc import Generator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from moto.server import ThreadedMotoServer
from sample_spaces import made, promote, publish, saved

from acclimate.errors import ConfigError, FormatError, OutputError, SourceError, SpaceError
from acclimate.publish import Spaces
from acclimate.publish.remote import RemoteShelf, without_secrets
from acclimate.publish.shelves import shelf_at


@pytest.fixture(scope="module")
def endpoint() -> Generator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3(endpoint: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Any:
    """The file system of a fresh bucket, which is where the environment says that S3 is."""
    for name, value in (
        ("AWS_ENDPOINT_URL", endpoint),
        ("AWS_ACCESS_KEY_ID", "key"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
        ("AWS_DEFAULT_REGION", "us-east-1"),
    ):
        monkeypatch.setenv(name, value)
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    system = fsspec.filesystem("s3", use_listings_cache=False)
    system.mkdir(_bucket(request))
    return system


@pytest.fixture
def url(s3: Any, request: pytest.FixtureRequest) -> str:  # noqa: ARG001 - the bucket is there
    return f"s3://{_bucket(request)}/all/spaces"


def _bucket(request: pytest.FixtureRequest) -> str:
    return f"bucket-{zlib.crc32(request.node.name.encode())}"


def test_a_life_on_s3(url, s3, tmp_path):
    spaces = Spaces(url, who="ann", cache=tmp_path / "cache")
    assert spaces.state().known == ()
    first, second = publish(spaces, seed=1), publish(spaces, seed=2)
    promote(spaces, first)
    spaces.pin("feed", first)
    promote(spaces, second)
    other = Spaces(url, who="bob", cache=tmp_path / "other")
    assert other.live("ranker") == second
    assert other.refreshed("ranker") == [first, second]
    assert other.pinned("feed", "ranker") == first
    folder = other.open(first)
    saved(1)(tmp_path / "same")
    arrays = "generation-1/arrays.safetensors"
    assert (folder / arrays).read_bytes() == (tmp_path / "same" / arrays).read_bytes()
    other.unpin("feed", "ranker")
    assert other.roll_back("ranker", instead_of=second) == first
    other.retire(second)
    assert spaces.prune() == ["ranker/2"]
    assert s3.find(url.removeprefix("s3://") + "/ranker/2") == []
    assert [entry.who for entry in spaces.entries()] == ["ann"] * 7 + ["bob"] * 3 + ["ann"]
    assert not any("probe" in path for path in s3.find(url.removeprefix("s3://")))


def test_a_flipped_byte_on_s3_is_refused_with_the_name_of_its_file(url, s3, tmp_path):
    spaces = Spaces(url, cache=tmp_path / "cache")
    space = publish(spaces)
    key = f"{url.removeprefix('s3://')}/ranker/1/generation-1/arrays.safetensors"
    whole = s3.cat_file(key)
    s3.pipe_file(key, whole[:-1] + bytes([whole[-1] ^ 1]))
    what = r"ranker/1 is damaged: 1 of 1 files are not what was published: generation-1/arrays\.safetensors"
    for look in (spaces.open, spaces.verify):
        with pytest.raises(FormatError, match=what):
            look(space)
    assert list((tmp_path / "cache").iterdir()) == []
    s3.rm_file(key)
    with pytest.raises(FormatError, match=r"ranker/1 is incomplete: generation-1/arrays\.safetensors is absent"):
        spaces.open(space)
    s3.pipe_file(key, whole)
    spaces.open(space)


def test_what_is_cached_is_proved_before_it_is_used_again(url, s3, tmp_path):
    spaces = Spaces(url, cache=tmp_path / "cache")
    space = publish(spaces)
    path = spaces.open(space) / "generation-1" / "arrays.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert (spaces.open(space) / "generation-1" / "arrays.safetensors").read_bytes() == whole
    s3.rm(f"{url.removeprefix('s3://')}/ranker/1", recursive=True)
    assert spaces.open(space) == path.parents[1]  # no need of the bucket


def test_a_cache_that_is_damaged_or_holds_another_model_is_made_anew(url, tmp_path):
    spaces = Spaces(url, cache=tmp_path / "cache")
    space = publish(spaces, seed=1)
    folder = spaces.open(space)
    arrays = Path("generation-1", "arrays.safetensors")
    whole = (folder / arrays).read_bytes()
    (folder / "manifest.json").write_text("{")
    assert (spaces.open(space) / arrays).read_bytes() == whole
    shutil.rmtree(folder)
    saved(2)(folder)  # whole, and another one
    assert (spaces.open(space) / arrays).read_bytes() == whole
    assert list((tmp_path / "cache").iterdir()) == [folder]


def test_many_open_a_space_that_none_has_yet(url, tmp_path):
    space = publish(Spaces(url, cache=tmp_path / "cache"))
    opened, start = [], threading.Barrier(6)

    def attempt():
        spaces = Spaces(url, cache=tmp_path / "cache")
        start.wait()
        opened.append(spaces.open(space))

    threads = [threading.Thread(target=attempt) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert opened == [tmp_path / "cache" / opened[0].name] * 6
    assert list((tmp_path / "cache").iterdir()) == opened[:1]


def test_a_damaged_manifest_is_named_by_its_address(url, s3, tmp_path):
    spaces = Spaces(url, cache=tmp_path / "cache")
    space = publish(spaces)
    s3.pipe_file(f"{url.removeprefix('s3://')}/ranker/1/manifest.json", b"{")
    for look in (spaces.open, spaces.verify, spaces.manifest):
        with pytest.raises(FormatError, match=f"^{url}/ranker/1/manifest.json is damaged: "):
            look(space)


def test_what_is_not_removed_is_told(tmp_path):
    class Keeping(fsspec.get_filesystem_class("memory")):
        """An S3 whose policy denies deletes: its answer lists them, and fsspec does not look."""

        def rm(self, path, recursive=False, maxdepth=None):
            pass

    shelf = RemoteShelf("s3://kept/spaces", "s3", Keeping(), f"/{tmp_path.name}")
    saved()(tmp_path / "model")
    shelf.put(tmp_path / "model", "ranker/1")
    with pytest.raises(OutputError, match="s3://kept/spaces/ranker/1 cannot be removed: 2 files are still there"):
        shelf.remove("ranker/1")


def test_a_second_put_under_a_name_is_refused_by_s3(url):
    shelf = shelf_at(url)
    shelf.create("journal/00000001.json", b"first")
    with pytest.raises(FileExistsError):
        shelf_at(url).create("journal/00000001.json", b"second")
    assert shelf.read("journal/00000001.json") == b"first"
    shelf.create("journal/00000001.json", b"first")  # a put that came through although it failed, and is repeated


def test_who_promotes_on_stale_facts_loses_on_s3(url, tmp_path):
    spaces = Spaces(url, cache=tmp_path / "cache")
    first, second = publish(spaces, seed=1), publish(spaces, seed=2)
    spaces.promote(first, instead_of=None)
    with pytest.raises(SpaceError, match="it changed meanwhile"):
        spaces.promote(second, instead_of=None)


def test_a_bucket_that_is_not_there(endpoint, s3, tmp_path):  # noqa: ARG001 - where S3 is
    spaces = Spaces("s3://nowhere/spaces", cache=tmp_path)
    for ask in (spaces.state, lambda: publish(spaces)):
        with pytest.raises(SourceError, match="s3://nowhere/spaces cannot be read: there is no such bucket"):
            ask()
    with pytest.raises(OutputError, match="s3://nowhere/spaces cannot be written"):
        shelf_at("s3://nowhere/spaces").create("journal/00000001.json", b"")


def test_a_server_that_is_not_there(s3, monkeypatch, tmp_path):  # noqa: ARG001 - the credentials
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    with pytest.raises(SourceError, match="s3://bucket cannot be read"):
        Spaces("s3://bucket", cache=tmp_path).state()


def test_many_threads_in_memory_lose_no_entry(tmp_path):
    url, count = f"memory://{tmp_path.name}", 8
    spaces = [Spaces(url, cache=tmp_path) for _ in range(count)]
    threads = [threading.Thread(target=publish, args=(one, "ranker", seed)) for seed, one in enumerate(spaces)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(one.space.number for one in spaces[0].state().known) == list(range(1, count + 1))
    assert len(list(spaces[0].entries())) == 2 * count


# --- file systems that cannot say who was first --------------------------------------------------------------


def test_a_file_system_that_promises_nothing_is_not_written_to(tmp_path):
    for url in (f"dir::file://{tmp_path}/x", "sftp://ann:sesame@127.0.0.1:9/spaces"):  # and not connected to
        with pytest.raises(ConfigError, match=r"cannot tell which of two writers was first") as error:
            Spaces(url)
        assert "sesame" not in error.value.message
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("s3://ann:a/b@c@bucket/x", "s3://ann:***@bucket/x"),
        (
            "nothing://ann:open@host/x?access_KEY=1&at=2&SecretId=3",
            "nothing://ann:***@host/x?access_KEY=***&at=2&SecretId=***",
        ),
        ("s3://bucket/a:b@c", "s3://bucket/a:b@c"),
    ],
)
def test_passwords_are_not_shown(url, shown):
    assert without_secrets(f"'{url}' is wrong", url) == f"'{shown}' is wrong"
    root = url.partition("://")[2]
    assert without_secrets(f"no {root}", url) == f"no {shown.partition('://')[2]}"


def test_an_error_of_s3_does_not_show_its_password(s3, tmp_path):  # noqa: ARG001 - where S3 is
    spaces = Spaces("s3://ann:open@bucket/spaces", cache=tmp_path)
    assert spaces.url == "s3://ann:***@bucket/spaces"
    with pytest.raises((SourceError, OutputError)) as error:
        publish(spaces)
    assert "open" not in str(error.value)


def test_a_store_that_takes_a_second_file_under_a_name_is_not_written_to(tmp_path):
    class Forgetful(fsspec.get_filesystem_class("memory")):
        """An S3 of old, which does not know the condition."""

        def pipe_file(self, path, value, mode="overwrite", **kwargs):  # noqa: ARG002 - it is not known
            super().pipe_file(path, value, **kwargs)

    shelf = RemoteShelf("s3://old/spaces", "s3", Forgetful(), f"/{tmp_path.name}")
    with pytest.raises(ConfigError, match="this store takes a second file under a name that is taken"):
        shelf.create("journal/00000001.json", b"first")
    assert shelf.names("journal") == []


@pytest.mark.parametrize(
    ("url", "what"),
    [("", "the place of the spaces is empty"), ("nothing://x", "'nothing://x' names no file system")],
)
def test_an_address_that_is_none(url, what):
    with pytest.raises(ConfigError, match=what):
        Spaces(url)


def test_spaces_are_the_same_by_path_and_by_address_of_a_file(tmp_path: Path):
    space = Spaces(tmp_path / "a b").publish(made(), saved())
    assert Spaces(f"file://{tmp_path}/a b").state().at("ranker/1").space == space
