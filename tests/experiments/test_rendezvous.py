"""Tests how the processes of a job by hand find each other; threads stand in for processes."""

import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import runs

from experiments import rendezvous


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(rendezvous, "_ANSWER", 0.5)


def outcomes(*processes, timeout=10.0):
    """Returns what each process, a number and the count that it expects, ends with, and seconds."""
    address, begun = f"127.0.0.1:{runs.free_port()}", time.monotonic()

    def of(process):
        number, count = process
        try:
            rendezvous.meet(address, address, count, number, timeout)
        except (ValueError, TimeoutError) as error:
            return error
        return None

    with ThreadPoolExecutor(len(processes)) as pool:
        return [*pool.map(of, processes)], time.monotonic() - begun


def test_processes_that_are_all_there_go_on_in_any_order():
    assert outcomes((2, 3), (0, 3), (1, 3))[0] == [None] * 3


@pytest.mark.parametrize(
    ("processes", "words"),
    [
        ([(0, 3), (1, 3), (1, 3)], "two processes have --process_id=1"),
        ([(0, 3), (0, 3), (1, 3)], "two processes have --process_id=0"),
        ([(0, 2), (2, 2)], "--process_id=2 must be in 0..1"),
        ([(0, 2), (-1, 2)], "--process_id=-1 must be in 0..1"),
        ([(0, 3), (1, 2)], "--num_processes is 3 in process 0 and 2 in process 1"),
    ],
)
def test_every_process_is_told_what_is_wrong_in_seconds(processes, words):
    errors, seconds = outcomes(*processes)
    assert all(isinstance(error, ValueError) and words in str(error) for error in errors)
    assert seconds < 3


def test_a_process_that_is_missing_is_named_and_the_others_end(monkeypatch, capsys):
    monkeypatch.setattr(rendezvous, "LATE", 0.3)
    errors, _ = outcomes((0, 4), (2, 4), timeout=1.0)
    assert all(isinstance(error, TimeoutError) for error in errors)
    assert "missing: --process_id=1, --process_id=3" in str(errors[0])
    # Process 0 says so early, and the other process repeats it.
    assert capsys.readouterr().err.count("missing: --process_id=1, --process_id=3") == 2


def test_a_process_that_was_started_again_is_no_second_one():
    address = f"127.0.0.1:{runs.free_port()}"
    with ThreadPoolExecutor() as pool:
        first = pool.submit(rendezvous.meet, address, address, 3, 0, 10.0)
        with pytest.raises(TimeoutError):
            rendezvous.meet(address, None, 3, 1, 0.5)
        others = [pool.submit(rendezvous.meet, address, None, 3, number, 10.0) for number in (1, 2)]
        assert [process.result() for process in (first, *others)] == [None] * 3


def test_a_stranger_neither_joins_nor_ends_the_job():
    address = f"127.0.0.1:{runs.free_port()}"
    with ThreadPoolExecutor() as pool:
        first = pool.submit(rendezvous.meet, address, address, 2, 0, 10.0)
        time.sleep(0.3)
        for words in (b"GET / HTTP/1.1\r\n\r\n", b"[1]\n", b'{"process": "1"}\n', b""):
            with socket.create_connection(
                ("127.0.0.1", int(address.rpartition(":")[2]))
            ) as stranger:
                stranger.sendall(words)
        assert not first.done()
        with pytest.raises(OSError):  # of another interface: only the given address listens
            socket.create_connection(("127.0.0.2", int(address.rpartition(":")[2])), timeout=1)
        rendezvous.meet(address, None, 2, 1, 10.0)
        first.result()


def test_a_port_of_another_program_is_said(capsys):
    """A job that runs already answers in the words of JAX."""
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor() as pool:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        other = pool.submit(rendezvous.meet, address, None, 2, 1, 1.0)
        connection, _ = server.accept()
        connection.sendall(b"\0\0\x12\x04\0\0\0\0\0\n")
        connection.close()
        with pytest.raises(TimeoutError):
            other.result()
        assert "the job runs already, or another program" in capsys.readouterr().err
        with pytest.raises(ValueError, match="--coordinator"):
            rendezvous.meet(address, address, 2, 0, 1.0)
