"""The page over HTTP: at the loopback interface, for requests that name it, until it is interrupted."""

from __future__ import annotations

from http.client import HTTPConnection
from threading import Thread

import pytest

from pipeline.report import serve as serve_page
from pipeline.report.serve import page_server


@pytest.fixture
def server():
    with page_server(b"<p>page</p>") as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def ask(server, path: str, host: str | None = None):
    connection = HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    connection.request("GET", path, headers={} if host is None else {"Host": host})
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, content


def test_one_page_and_nothing_else(server):
    assert server.server_address[0] == "127.0.0.1"
    assert ask(server, "/") == (200, b"<p>page</p>")
    assert ask(server, "/", f"localhost:{server.server_port}")[0] == 200
    assert ask(server, "/run.json")[0] == 404
    assert ask(server, "/../run.json")[0] == 404


def test_a_page_from_elsewhere_can_not_read_it_under_a_name_of_its_own(server):
    assert ask(server, "/", "evil.example")[0] == 403


def test_an_interruption_ends_it(tmp_path, monkeypatch):
    def interrupted(self, poll_interval=0.5):
        raise KeyboardInterrupt

    monkeypatch.setattr("http.server.ThreadingHTTPServer.serve_forever", interrupted)
    (tmp_path / "page.html").write_text("page")
    addresses = []
    serve_page(tmp_path / "page.html", addresses.append)
    assert addresses[0].startswith("http://127.0.0.1:")
