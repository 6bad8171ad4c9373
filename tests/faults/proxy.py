"""A TCP proxy in user space that spoils what passes through it. Standard library alone.

    with Proxy("127.0.0.1:7000", seed=3) as proxy:
        ... clients connect to proxy.address ...
        proxy.set(delay_s=0.05, jitter_s=0.02)      # either way; UP is from the client to the server, DOWN the other
        proxy.partition(UP)                         # nothing passes that way, no connection ends
        proxy.heal()

A lost packet is not a lost byte for TCP but a pause until it is sent again, so loss is a stall of the stream (stall_*) or
the end of the connection (reset_probability). What a partition held back is delivered once it heals, as the kernel of the
sender would do. Chance is drawn from the seed by connection and direction, for each piece that is read.

Everything public is thread-safe and works while connections are open.
"""

import asyncio
import dataclasses
import random
import socket
import struct
import threading

UP, DOWN = "up", "down"
PIECE_BYTES = 16 << 10
PIECES_HELD = 64  # in each direction of a connection; past it the sender is not read, as with a full window


@dataclasses.dataclass(frozen=True)
class Faults:
    """What happens to the pieces of one direction."""
    delay_s: float = 0
    jitter_s: float = 0               # added to the delay, uniform from 0; pieces stay in order
    bytes_per_s: float = 0            # 0: as fast as it goes
    stall_probability: float = 0      # of a piece: nothing passes for stall_s
    stall_s: float = 0.2
    reset_probability: float = 0      # of a piece: both ends see the connection reset
    cut_after_bytes: int | None = None  # of a connection, from now on: closed in the middle of a piece


class Proxy:
    """Listens at `address` and passes on to `target`, both host:port on this machine."""

    def __init__(self, target, seed=0, address="127.0.0.1:0", sleep=asyncio.sleep):
        self.target = target
        self.seed = seed
        self.connections = 0          # ever accepted
        self.bytes = {UP: 0, DOWN: 0}  # ever passed on
        self._sleep = sleep
        self._faults = {UP: Faults(), DOWN: Faults()}
        self._open = {UP: True, DOWN: True}
        self._links = set()
        self._server = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()
        host, port = address.rsplit(":", 1)
        self._host, self._port = host, int(port)
        self._do(self._listen())
        self.address = f"{host}:{self._port}"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    # ----------------------------------------------------------------------------------------------------- control

    def set(self, direction=None, **faults):
        """Replaces the faults of one direction, or of both; without any, none is left. Held bytes keep their fate."""
        for way in (direction,) if direction else (UP, DOWN):
            self._faults[way] = Faults(**faults)
        self._do(self._restart_counts())

    def partition(self, direction=None):
        """Nothing passes that way, or either way, until heal(). Connections stay, new ones are taken and lead nowhere."""
        for way in (direction,) if direction else (UP, DOWN):
            self._open[way] = False

    def heal(self):
        """No fault from now on; what a partition held is delivered."""
        self._open = {UP: True, DOWN: True}
        self.set()
        self._do(self._wake())

    def half_open(self):
        """The server's ends of all connections are closed, and the clients are never told; what they send is swallowed."""
        self._do(self._forget_servers())

    def reset(self):
        """Every connection is reset at both ends."""
        self._do(self._reset_all())

    def refuse(self, refusing=True):
        """New connections are refused, as at a port where nobody listens; those that are open go on."""
        self._do(self._stop_listening() if refusing else self._listen())

    def close(self):
        self._do(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    # ------------------------------------------------------------------------------------------ within the loop's thread

    def _do(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    async def _listen(self):
        if self._server is None:
            self._server = await asyncio.start_server(self._accept, self._host, self._port)
            self._port = self._server.sockets[0].getsockname()[1]

    async def _stop_listening(self):
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _restart_counts(self):
        for link in self._links:
            link.passed = {UP: 0, DOWN: 0}

    async def _wake(self):
        for link in self._links:
            link.woken.set()

    async def _forget_servers(self):
        for link in list(self._links):
            link.forget_server()

    async def _reset_all(self):
        for link in list(self._links):
            link.reset()

    async def _end(self):
        await self._stop_listening()
        await self._reset_all()
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _accept(self, reader, writer):
        self.connections += 1
        link = _Link(self, self.connections, reader, writer)
        self._links.add(link)
        try:
            await link.run()
        except asyncio.CancelledError:
            pass
        finally:
            self._links.discard(link)


class _Link:
    """One connection."""

    def __init__(self, proxy, number, reader, writer):
        self.proxy = proxy
        self.client = (reader, writer)
        self.server = None
        self.work = None
        self.forgotten = False
        self.passed = {UP: 0, DOWN: 0}
        self.woken = asyncio.Event()
        self.draws = {way: random.Random(f"{proxy.seed}/{number}/{way}") for way in (UP, DOWN)}

    async def run(self):
        await self._until_open(UP)  # in a partition no connection is made
        host, port = self.proxy.target.rsplit(":", 1)
        try:
            self.server = await asyncio.open_connection(host, int(port))
            self.work = asyncio.ensure_future(self._both_ways())
            await self.work
        except OSError:
            self.reset()
        except asyncio.CancelledError:
            if not self.forgotten:
                raise
            self._close(self.server)
            while await self.client[0].read(PIECE_BYTES):
                pass
        finally:
            self._close(self.server)
            self._close(self.client)

    async def _both_ways(self):
        parts = []
        for way, reader, writer in ((UP, self.client[0], self.server[1]), (DOWN, self.server[0], self.client[1])):
            held = asyncio.Queue(PIECES_HELD)
            parts += [asyncio.ensure_future(self._read(way, reader, held)),
                      asyncio.ensure_future(self._deliver(way, held, writer))]
        try:
            await asyncio.gather(*parts)
        finally:
            for part in parts:
                part.cancel()

    async def _read(self, way, reader, held):
        """Pieces with the time when they are due; many may be under way at once."""
        piece = b"."
        while piece:
            piece = await reader.read(PIECE_BYTES)
            faults = self.proxy._faults[way]
            delay = faults.delay_s + self.draws[way].random() * faults.jitter_s
            await held.put((asyncio.get_running_loop().time() + delay, piece))

    async def _deliver(self, way, held, writer):
        while True:
            due, piece = await held.get()
            early = due - asyncio.get_running_loop().time()
            if early > 0:
                await self.proxy._sleep(early)
            await self._until_open(way)
            if not piece:
                writer.write_eof()
                return
            await self._pass_on(way, piece, writer)

    async def _pass_on(self, way, piece, writer):
        faults, draw = self.proxy._faults[way], self.draws[way]
        if draw.random() < faults.stall_probability:
            await self.proxy._sleep(faults.stall_s)
        if draw.random() < faults.reset_probability:
            raise ConnectionResetError
        if faults.bytes_per_s:
            await self.proxy._sleep(len(piece) / faults.bytes_per_s)
        cut = faults.cut_after_bytes is not None and self.passed[way] + len(piece) >= faults.cut_after_bytes
        if cut:
            piece = piece[:max(0, faults.cut_after_bytes - self.passed[way])]
        writer.write(piece)
        await writer.drain()
        self.passed[way] += len(piece)
        self.proxy.bytes[way] += len(piece)
        if cut:
            writer.close()  # what was written arrives, then the stream ends in the middle
            await writer.wait_closed()
            raise ConnectionResetError

    async def _until_open(self, way):
        while not self.proxy._open[way]:
            self.woken.clear()
            await self.woken.wait()

    def forget_server(self):
        if self.work is not None and not self.work.done():
            self.forgotten = True
            self.work.cancel()

    def reset(self):
        for end in (self.client, self.server):
            if end is not None and not end[1].is_closing():
                end[1].get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                end[1].transport.abort()

    @staticmethod
    def _close(end):
        if end is not None and not end[1].is_closing():
            end[1].close()
