"""Brings together the processes of a job that is started by hand, before JAX joins them.

JAX waits in silence for a process that is missing, and aborts if two processes have one number. So
the processes meet first, at the address that JAX's coordinator takes afterwards. Process 0 listens
there. Every other process connects, and sends its number and how many processes it expects. Process
0 answers in lines of JSON: ``{"say": sentence}`` is printed, if it is not empty, and ``{"end":
sentence}`` is the reason why the job cannot start, or empty when all have come.
"""

import asyncio
import contextlib
import itertools
import json
import sys
from typing import Any

# Seconds after which a process says what it waits for.
LATE = 30.0
# Seconds between two attempts to connect, and within which a process that is there answers.
_AGAIN, _ANSWER = 0.2, 5.0
_NAMED = 10  # missing processes that are named
_STRANGE = (
    "{} answers, but not as a job that starts: the job runs already, or another program has the "
    "port; this process waits for it to end"
)


def meet(coordinator: str, bound: str | None, count: int, process: int, timeout: float) -> None:
    """Returns when all ``count`` processes of the job have come, this one included.

    The ``coordinator`` is ``HOST:PORT`` of process 0, as the others reach it. Process 0 listens
    there alone if ``bound`` is the same address, and on all interfaces if ``bound`` is None. The
    ``timeout`` is in seconds.

    Raises:
      ValueError: two processes have the same number, a number is out of range, two processes
        expect different counts, or process 0 cannot listen. Every process that can be reached
        raises it.
      TimeoutError: not all processes have come in time.
    """
    wrong = _out_of_range(process, count)
    if wrong:  # process 0 is told, if it is there, and tells the others
        with contextlib.suppress(TimeoutError):
            asyncio.run(asyncio.wait_for(_join(coordinator, count, process), _ANSWER))
    elif process == 0:
        wrong = asyncio.run(_host(coordinator, bound, count, timeout))
    else:
        # Longer than process 0 does, which would else miss processes that have just given up.
        longer = timeout + _ANSWER
        try:
            wrong = asyncio.run(asyncio.wait_for(_join(coordinator, count, process), longer))
        except TimeoutError:
            raise TimeoutError(_late(f"process {process} of {count}", coordinator)) from None
    if wrong:
        raise ValueError(wrong)


def _host_and_port(coordinator: str) -> tuple[str, int]:
    """Returns the two parts of ``HOST:PORT``."""
    host, _, port = coordinator.rpartition(":")
    return host.strip("[]"), int(port)


def _out_of_range(process: int, count: int) -> str:
    if 0 <= process < count:
        return ""
    return f"--process_id={process} must be in 0..{count - 1}, as there are --num_processes={count}"


def _late(who: str, coordinator: str) -> str:
    return (
        f"{who} still waits at {coordinator} for the others to start: check that all run with the "
        "same --coordinator, and that each reaches the port of process 0"
    )


async def _host(coordinator: str, bound: str | None, count: int, timeout: float) -> str:
    """Waits for the others as process 0; returns what is wrong, or an empty string."""
    guests = _Guests(count)
    host, port = _host_and_port(coordinator)
    try:
        server = await asyncio.start_server(guests.greet, bound and host, port)
    except OSError as error:
        # If another process 0 listens there, it tells all that there are two.
        with contextlib.suppress(TimeoutError):
            return await asyncio.wait_for(_join(coordinator, count, 0), _ANSWER)
        return f"--coordinator={coordinator}: process 0 cannot listen there ({error.strerror})"
    try:
        async with asyncio.timeout(timeout):
            done, _ = await asyncio.wait([guests.end], timeout=LATE)
            if not done:
                _say(guests.late(coordinator), set())
                await guests.tell({"say": guests.late(coordinator)})
            wrong = await guests.end
            await guests.tell({"end": wrong})
            if wrong:  # processes that start a little later are told too
                await asyncio.sleep(_ANSWER)
            return wrong
    except TimeoutError:
        raise TimeoutError(guests.late(coordinator)) from None
    finally:
        server.close()


class _Guests:
    """Holds the processes that have come; ``end`` is what is wrong, or "" once all have come."""

    def __init__(self, count: int):
        self.end: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._count = count
        self._writers: dict[int, asyncio.StreamWriter] = {}
        self._refused: list[asyncio.StreamWriter] = []

    def late(self, coordinator: str) -> str:
        """Returns a sentence that names the first processes that have not come."""
        missing = (n for n in range(1, self._count) if n not in self._writers)
        first = ", ".join(f"--process_id={n}" for n in itertools.islice(missing, _NAMED))
        more = self._count - 1 - len(self._writers) - _NAMED
        late = _late(f"process 0 of {self._count}", coordinator)
        return f"{late}; missing: {first}" + (f" and {more} more" if more > 0 else "")

    async def tell(self, message: dict[str, str]) -> None:
        """Sends a message to all who have come."""
        for writer in [*self._writers.values(), *self._refused]:
            with contextlib.suppress(OSError):  # it has gone
                writer.write(_line(message))
                await writer.drain()

    async def greet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Takes in a process until it goes, and ends the waiting if it is wrong or the last."""
        ends = OSError, asyncio.CancelledError  # of the connection, or of the waiting
        with contextlib.closing(writer), contextlib.suppress(*ends):
            hello = await asyncio.wait_for(_message(reader), _ANSWER)
            process, count = hello.get("process"), hello.get("count")
            if not isinstance(process, int) or not isinstance(count, int):  # a stranger
                return
            writer.write(_line({"say": ""}))
            wrong = self._wrong(process, count)
            if wrong:
                self._refused.append(writer)
            else:
                self._writers[process] = writer
            if self.end.done():
                writer.write(_line({"end": self.end.result()}))
            elif wrong or len(self._writers) == self._count - 1:
                self.end.set_result(wrong)
            while await reader.read(1024):  # until it goes
                pass
            if self._writers.get(process) is writer:
                del self._writers[process]

    def _wrong(self, process: int, count: int) -> str:
        if count != self._count:
            return f"--num_processes is {self._count} in process 0 and {count} in process {process}"
        if process == 0 or process in self._writers:
            return f"two processes have --process_id={process}: give each its own, from 0 on"
        return _out_of_range(process, count)


async def _join(coordinator: str, count: int, process: int) -> str:
    """Comes to process 0; returns what it says is wrong, or an empty string."""
    host, port = _host_and_port(coordinator)
    said: set[str] = set()
    late = asyncio.get_running_loop().call_later(
        LATE, _say, _late(f"process {process} of {count}", coordinator), said
    )
    while True:
        with contextlib.suppress(OSError):
            reader, writer = await asyncio.open_connection(host, port)
            with contextlib.closing(writer):
                writer.write(_line({"process": process, "count": count}))
                while message := await _message(reader):
                    late.cancel()
                    if "end" in message:
                        return message["end"]
                    _say(message.get("say", _STRANGE.format(coordinator)), said)
                    if "say" not in message:
                        break
        await asyncio.sleep(_AGAIN)


def _say(sentence: str, said: set[str]) -> None:
    """Prints a sentence that is not among the sentences ``said`` before."""
    if sentence and sentence not in said:
        print(sentence, file=sys.stderr, flush=True)
    said.add(sentence)


def _line(message: dict[str, Any]) -> bytes:
    return json.dumps(message).encode() + b"\n"


async def _message(reader: asyncio.StreamReader) -> dict[str, Any]:
    """Returns the next message; it is empty at the end, and has no known field if it is no JSON."""
    try:
        line = await reader.readline()
        message = json.loads(line) if line else {}
    except ValueError:
        message = None
    return message if isinstance(message, dict) else {"strange": True}
