"""An object store that fails for moments is asked again; what it holds is whole, and takes few requests."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from pathlib import PurePosixPath

import pyarrow as pa
import pytest
from object_store import ObjectStore
from pyarrow import fs

from rna_ray.analysis import query
from rna_ray.errors import CheckpointError, QueryError, StoreError, UnreachableError
from rna_ray.store import Store, connect, differences, layout, open_store, remote, weights
from rna_ray.store.files import Files, open_files
from rna_ray.store.records import SCHEMAS
from rna_ray.store.remote import NoAnswerError, asked

X = PurePosixPath("x")
_names = itertools.count()


@pytest.fixture
def files(object_store: ObjectStore) -> Files:
    """An empty folder of the bucket."""
    return open_files(object_store.uri(f"folder-{next(_names)}"))


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests are made again for a moment only."""
    monkeypatch.setattr(remote, "PATIENCE_SECONDS", 0.2)


def transient(times: int) -> list[OSError]:
    return [OSError(f"AWS Error SLOW_DOWN during PutObject operation: {at}") for at in range(times)]


def asked_with(answers: list[OSError | str]) -> tuple[int, object]:
    """Return how often a question was put that is answered so, and what came of it."""
    left = list(answers)

    def question() -> str:
        answer = left.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer

    try:
        found: object = asked(question)
    except OSError as error:
        found = error
    return len(answers) - len(left), found


def test_a_question_is_put_again_until_there_is_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "_PAUSES", (0.001, 0.004))
    assert asked_with([*transient(7), "here"]) == (8, "here")


def test_patience_runs_out_with_the_number_of_tries_and_the_last_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "_PAUSES", (0.01, 0.01))
    monkeypatch.setattr(remote, "PATIENCE_SECONDS", 0.2)
    started = time.monotonic()
    tries, found = asked_with(transient(1000))
    assert isinstance(found, NoAnswerError) and 3 < tries <= 40 and time.monotonic() - started < 30
    assert str(found).startswith(f"no answer in {tries} tries over 0 s, the last time: AWS Error SLOW_DOWN")


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(2, "Path does not exist 'bucket/x'"),
        OSError("AWS Error ACCESS_DENIED during HeadObject operation: No response body"),
        OSError("AWS Error NO_SUCH_BUCKET during PutObject operation: The specified bucket does not exist"),
        OSError("AWS Error INVALID_ACCESS_KEY_ID during ListObjectsV2 operation: no such key id"),
        OSError("AWS Error UNKNOWN (HTTP status 400) during HeadObject operation: No response body"),
        OSError("google::cloud::Status(PERMISSION_DENIED: no)"),
        OSError("Not a regular file: 'bucket'"),
    ],
)
def test_what_cannot_get_better_is_said_at_once(error: OSError) -> None:
    assert asked_with([error, "here"]) == (1, error)


@pytest.mark.parametrize(
    "words",
    [
        "AWS Error UNKNOWN (HTTP status 500) during HeadObject operation",
        "AWS Error UNKNOWN (HTTP status 429) during HeadObject operation",
        "AWS Error NETWORK_CONNECTION during GetObject operation: curlCode: 56",
        "AWS Error NO_SUCH_UPLOAD during CompleteMultipartUpload operation",  # the answer to the first one was lost
    ],
)
def test_what_may_get_better_is_asked_again(words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "_PAUSES", (0.001, 0.004))
    assert asked_with([OSError(words), "here"]) == (2, "here")


def test_an_address_with_a_secret_in_it_is_refused_without_saying_it() -> None:
    with pytest.raises(StoreError, match="give credentials in the environment") as told:
        open_files("s3://AKIA:hush@bucket/store")
    assert "hush" not in str(told.value) and "bucket/store" in str(told.value)


@pytest.mark.slow
def test_a_file_takes_few_requests(object_store: ObjectStore, files: Files) -> None:
    def made(do: object) -> list[str]:
        with object_store.counted() as requests:
            do()
        return [request.split()[0] for request in requests]

    assert made(lambda: files.write(X, b"some rows")) == ["PUT"]
    assert made(lambda: files.read(X)) == ["HEAD", "GET"]
    assert made(lambda: files.exists(X)) == ["HEAD"]
    assert made(lambda: files.exists(PurePosixPath("y"))) == ["HEAD"]
    assert made(lambda: files.find(X)) == ["HEAD", "GET"] and files.find(X) == b"some rows"
    assert files.find(PurePosixPath("y")) is None
    assert made(lambda: files.names(PurePosixPath("."))) == ["GET"]
    assert not files.exists(PurePosixPath("y")) and files.read(X) == b"some rows"


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["500", "503", "reset", "lost", "half"])
def test_what_is_written_and_read_among_faults_is_what_was_meant(
    fault: str, object_store: ObjectStore, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "_PAUSES", (0.01, 0.05))
    wanted = {PurePosixPath(f"f{at}"): bytes([at]) * (1000 * at) for at in range(1, 9)}
    with object_store.faults(odds={fault: 0.4}, seed=5) as faults:
        files.each(lambda path: files.write(path, wanted[path]), wanted)
        found = dict(zip(wanted, files.each(files.read, wanted), strict=True))
    assert found == wanted and len(faults.done) > 4
    assert files.names(PurePosixPath(".")) == sorted(path.name for path in wanted)


@pytest.mark.slow
def test_a_large_file_whose_parts_do_not_arrive_leaves_what_was_there(
    object_store: ObjectStore, files: Files, impatient: None
) -> None:
    large = bytes(12_000_000)  # pyarrow sends it in parts
    with object_store.faults(odds={"503": 1.0}, only=r"PUT .*partNumber=2"):
        with pytest.raises(UnreachableError, match=f"cannot write {files.full(X)}: no answer in .*Please reduce"):
            files.write(X, large)
        assert files.names(PurePosixPath(".")) == []
        files.write(X, b"before")
        with pytest.raises(UnreachableError):
            files.write(X, large)
    assert files.read(X) == b"before"
    files.write(X, large)
    assert files.read(X) == large


@pytest.mark.slow
def test_a_large_file_arrives_although_the_last_answer_was_lost(object_store: ObjectStore, files: Files) -> None:
    with object_store.faults(odds={"lost": 1.0}, only="POST .*uploadId", most=1) as faults:
        files.write(X, bytes(12_000_000))
    assert faults.done and files.read(X) == bytes(12_000_000)


@pytest.mark.slow
def test_a_bucket_that_is_not_there_is_said_at_once(object_store: ObjectStore) -> None:
    files = open_files(object_store.uri("store").replace("bucket", "other"))
    with object_store.counted() as requests, pytest.raises(StoreError, match=r"NO_SUCH_BUCKET") as told:
        files.write(X, b"rows")
    assert not isinstance(told.value, UnreachableError) and len(requests) == 1


@pytest.mark.slow
def test_many_files_are_read_at_once(object_store: ObjectStore, files: Files) -> None:
    paths = [PurePosixPath(f"f{at:02}") for at in range(48)]
    files.each(lambda path: files.write(path, path.name.encode()), paths)
    started = time.monotonic()
    with object_store.faults(seconds=0.25):
        assert files.each(files.read, paths) == [path.name.encode() for path in paths]
    assert time.monotonic() - started < 12  # one after the other: 48 times two answers of a quarter of a second, 24 s


@pytest.fixture
def twins(object_store: ObjectStore, store: Store, rows, evaluated) -> tuple[Store, Store]:
    """A store on the disk and one on the object store, with the same rows."""
    there = open_store(object_store.uri(f"store-{next(_names)}"))
    for one in (store, there):
        for unit in ("u1", "u2", "u3"):
            evaluated(one, unit, n=3, adversarial_correct=[1, 0, 1])
        trained = {"trials": rows("trials", unit_id="t1"), "epochs": rows("epochs", 2, unit_id="t1")}
        one.commit("t1", trained, record="trials")
    return store, there


@pytest.mark.slow
def test_sql_over_a_remote_store_fetches_each_file_once_and_only_where_it_is_asked_for(
    object_store: ObjectStore, twins: tuple[Store, Store]
) -> None:
    here, there = twins
    with object_store.counted() as opening:
        connection = connect(there)
    assert Counter(request.split()[0] for request in opening) == {"GET": len(SCHEMAS) + 1}  # a look at each folder
    question = "SELECT unit_id, example, adversarial_correct FROM examples ORDER BY ALL"
    with object_store.counted() as requests:
        found = query.answer(connection, question)
        assert query.answer(connection, question) == found == query.answer(connect(here), question)
    assert found.num_rows == 9
    assert len(requests) == len(set(requests)) == 6 and all("/examples/" in request for request in requests)
    assert differences(here, there) == []


@pytest.mark.slow
def test_opening_a_remote_store_takes_two_requests_and_committing_a_unit_four(
    object_store: ObjectStore, twins: tuple[Store, Store], evaluated
) -> None:
    _, there = twins
    with object_store.counted() as opening:
        opened = open_store(there.uri)
    with object_store.counted() as committing:
        evaluated(opened, "u4")
    assert [request.split()[0] for request in opening] == ["HEAD", "GET"]
    assert [request.split()[0] for request in committing] == ["HEAD", "PUT", "HEAD", "PUT"]


@pytest.mark.slow
def test_a_damaged_remote_file_is_named_by_a_query(twins: tuple[Store, Store]) -> None:
    _, there = twins
    path = layout.rows_file("examples", there.counted("examples")["u2"])
    there.files.write(path, there.files.read(path)[:-20])
    with pytest.raises(QueryError, match=f"the store's file {there.files.full(path)} is damaged"):
        query.answer(connect(there), "SELECT * FROM examples")


@pytest.mark.slow
def test_no_answer_says_nothing_about_what_is_stored(
    object_store: ObjectStore, twins: tuple[Store, Store], impatient: None
) -> None:
    _, there = twins
    there.files.write(PurePosixPath("checkpoints/t1/last-0.safetensors"), b"weights")
    connection = connect(there)
    with object_store.faults(odds={"500": 1.0}):
        with pytest.raises(UnreachableError, match=r"cannot read .*no answer"):
            there.read_file("examples", "u1")
        with pytest.raises(UnreachableError, match=r"cannot look at .*no answer"):
            there.is_done("u1", "evaluations")
        with pytest.raises(UnreachableError, match=r"cannot read .*no answer"):
            weights.shapes(there, PurePosixPath("checkpoints/t1/last-0.safetensors"))
        with pytest.raises((UnreachableError, QueryError), match="no answer") as told:
            query.answer(connection, "SELECT * FROM examples")
    assert "damaged" not in str(told.value)
    with pytest.raises(CheckpointError, match="have 7 bytes"):
        weights.shapes(there, PurePosixPath("checkpoints/t1/last-0.safetensors"))


def test_a_remote_file_reads_in_parts_as_a_local_one_does() -> None:
    there, _ = fs.FileSystem.from_uri("mock:///")
    with there.open_output_stream("x") as stream:
        stream.write(bytes(range(200)))
    with remote.Remote(there).open_input_file("x") as file:
        assert isinstance(file, pa.NativeFile) and file.size() == 200
        assert file.read(3) == b"\0\1\2" and file.read_at(4, 190) == bytes(range(190, 194))
        assert file.read_at(50, 190) == bytes(range(190, 200))
    with remote.Remote(there).open_input_stream("x") as stream:
        assert stream.read(5) == bytes(range(5)) and stream.read() == bytes(range(5, 200)) and stream.read() == b""
