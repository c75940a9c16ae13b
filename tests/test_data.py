"What a notebook can't hold of `load_mnist`: mirrors that fail, a process that is killed, a pickle by Python 2, and how the sample was made"
import hashlib, subprocess, sys, threading, time, warnings
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np, pytest, torch

from conftest import TOP
from minimlp import data
from minimlp.data import SAMPLE, load_mnist, make_sample, read_idx

FILES = {name: (SAMPLE/name).read_bytes() for name in data.SHA256}  # the sample plays full MNIST here
DEAD = 'http://127.0.0.1:9/'                                        # nobody listens on this port


@pytest.fixture
def mirror():
    "Starts servers on loopback; `mirror(change)` serves each file as `change(bytes)` and returns its address"
    servers = []
    def start(change=lambda b: b, claim=len):
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                server.asked.append(self.path)
                whole = FILES[self.path[1:]]
                body = change(whole)
                self.send_response(200 if body else 404)
                self.send_header('Content-Length', str(claim(body)))
                self.end_headers()
                for i in range(0, len(body), 4096):
                    self.wfile.write(body[i:i+4096])
                    time.sleep(server.pause)
            def log_message(self, *args): pass
        server = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
        server.asked, server.pause, server.url = [], 0, f'http://127.0.0.1:{server.server_port}/'
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return server
    yield start
    for s in servers: s.shutdown(); s.server_close()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    "An empty cache, no MINIMLP_DATA, and the hashes of the sample in place of those of full MNIST"
    monkeypatch.delenv('MINIMLP_DATA')
    monkeypatch.setattr(data.pooch, 'os_cache', lambda name: tmp_path)
    monkeypatch.setattr(data, 'SHA256', {n: hashlib.sha256(b).hexdigest() for n, b in FILES.items()})
    monkeypatch.setattr(data, 'MIRRORS', (DEAD,))
    return tmp_path


def held(cache): return sorted(p.name for p in cache.iterdir())


def test_download_once(cache, mirror, monkeypatch):
    good = mirror()
    monkeypatch.setattr(data, 'MIRRORS', (good.url,))
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        (x, y), _, _ = load_mnist()
        assert len(good.asked)==4 and held(cache)==sorted(FILES)
        assert torch.equal(load_mnist()[0][0], x) and torch.equal(load_mnist(download=False)[0][1], y)
    assert len(good.asked)==4


@pytest.mark.parametrize('bad', [lambda b: b'', lambda b: b[:-100], lambda b: b[:50] + b'X' + b[51:]], ids=['404', 'short', 'changed'])
def test_next_mirror(cache, mirror, monkeypatch, bad):
    first, second = mirror(bad), mirror()
    monkeypatch.setattr(data, 'MIRRORS', (DEAD, first.url, second.url))
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        load_mnist()
    assert len(first.asked)==len(second.asked)==4
    assert {n: (cache/n).read_bytes() for n in held(cache)}==FILES


@pytest.mark.parametrize('claim', [len, lambda b: 2*len(b)], ids=['changed', 'broken off'])
def test_nothing_bad_stays(cache, mirror, monkeypatch, claim):
    bad = mirror(lambda b: b[:-1] + b'X', claim)
    monkeypatch.setattr(data, 'MIRRORS', (bad.url,))
    with pytest.warns(UserWarning, match='sample of 5,000'): load_mnist()
    assert held(cache)==[]


def test_killed_in_the_middle(cache, mirror):
    slow = mirror()
    slow.pause = .05
    code = f'from minimlp import data; from pathlib import Path; data.MIRRORS = ({slow.url!r},); data.SHA256 = {data.SHA256!r}; data._download(Path({str(cache)!r}))'
    p = subprocess.Popen([sys.executable, '-c', code], stderr=subprocess.DEVNULL)
    for _ in range(600):
        if slow.asked: break
        time.sleep(.1)
    time.sleep(.5)
    assert p.poll() is None, 'it was to be in the middle of a download'
    p.kill(); p.wait()
    assert not set(FILES) & set(held(cache))
    with pytest.raises(FileNotFoundError, match="isn't on this machine"): load_mnist(download=False)


def test_no_network(cache):
    with pytest.warns(UserWarning, match='no mirror gave train-images') as said: splits = load_mnist()
    assert [len(x) for x, _ in splits]==[5000, 1000, 1000] and len(said)==1
    with pytest.raises(FileNotFoundError, match='sample=True'): load_mnist(download=False)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        load_mnist(sample=True)


def test_damaged_cache_is_no_cache(cache, mirror, monkeypatch):
    for n, b in FILES.items(): (cache/n).write_bytes(b)
    (cache/'t10k-labels-idx1-ubyte.gz').write_bytes(b'half')
    with pytest.raises(FileNotFoundError): load_mnist(download=False)
    good = mirror()
    monkeypatch.setattr(data, 'MIRRORS', (good.url,))
    load_mnist()
    assert good.asked==['/t10k-labels-idx1-ubyte.gz']


def test_environment_first(cache, monkeypatch):
    "A relative MINIMLP_DATA is found from the current folder and from below; a wrong one is told, not skipped"
    (cache/'mine').symlink_to(SAMPLE)
    (cache/'a'/'b').mkdir(parents=True)
    monkeypatch.setenv('MINIMLP_DATA', 'mine')
    for d in ('.', 'a', 'a/b'):
        monkeypatch.chdir(cache/d)
        assert len(load_mnist()[0][0])==5000
    monkeypatch.setenv('MINIMLP_DATA', 'yours')
    with pytest.raises(FileNotFoundError, match='MINIMLP_DATA=yours'): load_mnist()


def test_pickle_by_python_2():
    "`python2.pkl.gz` holds the sample's first 20 rows of each split, written by Python 2.7's cPickle with NumPy 1.16"
    for (x, y), (xs, ys) in zip(load_mnist(TOP/'tests'/'python2.pkl.gz'), load_mnist(sample=True)):
        assert torch.equal(x, xs[:20]) and torch.equal(y, ys[:20]) and (x.dtype, y.dtype)==(torch.float32, torch.int64)


@pytest.mark.full
def test_sample_is_made_as_documented(tmp_path, monkeypatch):
    import os
    make_sample(os.environ['MINIMLP_DATA'], tmp_path)
    for name in data.SHA256: assert np.array_equal(read_idx(tmp_path/name), read_idx(SAMPLE/name)), name
