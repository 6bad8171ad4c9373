"""The fault proxy before an echo server: what each fault looks like from both ends. Nothing depends on how long it takes."""

import asyncio
import socket
import threading
import unittest

from proxy import DOWN, UP, Proxy

LIMIT_S = 60
BODY = bytes(range(256)) * 1024  # several pieces


class Echo:
    """Sends back what comes; `ended` counts connections that came to their end here."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.listener.getsockname()[1]}"
        self.ended = threading.Semaphore(0)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        with connection:
            try:
                while piece := connection.recv(65536):
                    connection.sendall(piece)
            except OSError:
                pass
        self.ended.release()


class ProxyTest(unittest.TestCase):
    def setUp(self):
        self.echo = Echo()
        self.addCleanup(self.echo.listener.close)

    def proxy(self, **options):
        proxy = Proxy(self.echo.address, **options)
        self.addCleanup(proxy.close)
        return proxy

    def connect(self, proxy):
        host, port = proxy.address.split(":")
        connection = socket.create_connection((host, int(port)), LIMIT_S)
        self.addCleanup(connection.close)
        return connection

    def exchange(self, connection, body):
        sender = threading.Thread(target=connection.sendall, args=(body,))
        sender.start()
        got = b""
        while len(got) < len(body):
            piece = connection.recv(65536)
            if not piece:
                break
            got += piece
        sender.join(LIMIT_S)
        return got

    def silent(self, connection):
        """Nothing has come so far, and the connection stands."""
        connection.setblocking(False)
        try:
            return connection.recv(1) is None
        except BlockingIOError:
            return True
        finally:
            connection.settimeout(LIMIT_S)

    def test_without_faults_every_byte_passes_in_order_and_the_end_too(self):
        proxy = self.proxy()
        connection = self.connect(proxy)
        self.assertEqual(self.exchange(connection, BODY), BODY)
        connection.shutdown(socket.SHUT_WR)
        self.assertEqual(connection.recv(1), b"")
        self.assertTrue(self.echo.ended.acquire(timeout=LIMIT_S))
        self.assertEqual(proxy.bytes, {UP: len(BODY), DOWN: len(BODY)})

    def test_delay_jitter_stalls_and_bandwidth_are_waited_for_as_the_seed_says(self):
        def waits_of(seed):
            waits = []

            async def sleep(seconds):
                waits.append(seconds)
            proxy = self.proxy(seed=seed, sleep=sleep)
            proxy.set(UP, stall_probability=0.5, stall_s=7)
            proxy.set(DOWN, delay_s=100, jitter_s=50, bytes_per_s=2)
            connection = self.connect(proxy)
            for _ in range(20):
                self.assertEqual(self.exchange(connection, b"ab"), b"ab")
            return waits
        waits = waits_of(1)
        stalls = [i for i, wait in enumerate(waits) if wait == 7]
        self.assertIn(len(stalls), range(3, 18))
        self.assertEqual(waits.count(1), 20)  # two bytes at two a second
        delays = [wait for wait in waits if wait > 90]
        self.assertEqual(len(delays), 20)
        self.assertGreater(max(delays) - min(delays), 10)
        self.assertEqual(stalls, [i for i, wait in enumerate(waits_of(1)) if wait == 7])
        self.assertNotEqual(stalls, [i for i, wait in enumerate(waits_of(2)) if wait == 7])

    def test_a_partition_holds_what_is_sent_that_way_and_delivers_it_when_it_heals(self):
        for way in (UP, DOWN, None):
            with self.subTest(way):
                proxy = self.proxy()
                connection = self.connect(proxy)
                self.assertEqual(self.exchange(connection, b"before"), b"before")
                proxy.partition(way)
                connection.sendall(b"during")
                later = self.connect(proxy)
                later.sendall(b"later")
                self.assertTrue(self.silent(connection) and self.silent(later))
                proxy.heal()
                self.assertEqual(connection.recv(64), b"during")
                self.assertEqual(later.recv(64), b"later")

    def test_half_open_ends_the_server_side_alone(self):
        proxy = self.proxy()
        connection = self.connect(proxy)
        self.assertEqual(self.exchange(connection, b"x"), b"x")
        proxy.half_open()
        self.assertTrue(self.echo.ended.acquire(timeout=LIMIT_S))
        connection.sendall(BODY)  # swallowed, or this would block
        self.assertTrue(self.silent(connection))
        fresh = self.connect(proxy)
        self.assertEqual(self.exchange(fresh, b"fresh"), b"fresh")

    def test_a_cut_ends_the_stream_in_the_middle(self):
        proxy = self.proxy()
        proxy.set(DOWN, cut_after_bytes=100_001)
        self.assertEqual(self.exchange(self.connect(proxy), BODY), BODY[:100_001])

    def test_a_reset_is_seen_by_both_ends(self):
        proxy = self.proxy(seed=3)
        connection = self.connect(proxy)
        self.assertEqual(self.exchange(connection, b"x"), b"x")
        proxy.reset()
        self.assertRaises(ConnectionResetError, connection.recv, 1)
        self.assertTrue(self.echo.ended.acquire(timeout=LIMIT_S))
        proxy.set(UP, reset_probability=1)
        connection = self.connect(proxy)
        connection.sendall(b"x")
        self.assertRaises(ConnectionResetError, connection.recv, 1)

    def test_refused_connections_are_refused_until_they_are_not(self):
        proxy = self.proxy()
        old = self.connect(proxy)
        self.assertEqual(self.exchange(old, b"x"), b"x")
        proxy.refuse()
        self.assertRaises(ConnectionRefusedError, self.connect, proxy)
        self.assertEqual(self.exchange(old, b"open"), b"open")
        proxy.refuse(False)
        self.assertEqual(self.exchange(self.connect(proxy), b"again"), b"again")

    def test_a_server_that_is_not_there_is_a_reset(self):
        self.echo.address = "127.0.0.1:1"
        self.assertRaises(ConnectionResetError, self.connect(self.proxy()).recv, 1)


if __name__ == "__main__":
    unittest.main(verbosity=2)
