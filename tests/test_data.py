"""What a notebook can't hold of the data: mirrors that fail, a process that is killed, a pickle by
Python 2, files that unpack to far more than they should, and how the sample was made"""
import gzip, hashlib, os, pickle, shutil, struct, subprocess, sys, threading, time, tracemalloc, warnings
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np, pytest, torch

from conftest import TOP
from minimlp import fetch, idx
from minimlp.data import SAMPLE, fingerprint, load_mnist, load_share, load_test, locate, make_sample
from minimlp.idx import read_idx, read_pickle, write_idx

FILES = {name: (SAMPLE/name).read_bytes() for name in fetch.SHA256}  # the sample plays full MNIST here
DEAD = 'http://127.0.0.1:9/'                                         # nobody listens on this port


# Downloads

@pytest.fixture
def mirror():
    "Starts servers on loopback; `mirror(change)` serves each file as `change(bytes)`"
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
    for s in servers:
        s.shutdown()
        s.server_close()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    "An empty cache, no MINIMLP_DATA, and the hashes of the sample in place of those of full MNIST"
    monkeypatch.delenv('MINIMLP_DATA')
    monkeypatch.setattr(fetch.pooch, 'os_cache', lambda name: tmp_path)
    hashes = {n: hashlib.sha256(b).hexdigest() for n, b in FILES.items()}
    monkeypatch.setattr(fetch, 'SHA256', hashes)
    monkeypatch.setattr(fetch, 'MIRRORS', (DEAD,))
    return tmp_path


@pytest.fixture
def silent():
    "Any warning is an error"
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        yield


def held(cache): return sorted(p.name for p in cache.iterdir())


def test_download_once(cache, mirror, monkeypatch, silent):
    good = mirror()
    monkeypatch.setattr(fetch, 'MIRRORS', (good.url,))
    (x, y), _, _ = load_mnist()
    assert len(good.asked)==4 and held(cache)==sorted(FILES)
    assert torch.equal(load_mnist()[0][0], x)
    assert torch.equal(load_mnist(download=False)[0][1], y)
    assert locate()==locate('download')==cache
    assert len(good.asked)==4


BAD = dict(missing=lambda b: b'', short=lambda b: b[:-100], changed=lambda b: b[:50] + b'X' + b[51:])


@pytest.mark.parametrize('bad', BAD.values(), ids=BAD)
def test_next_mirror(cache, mirror, monkeypatch, silent, bad):
    first, second = mirror(bad), mirror()
    monkeypatch.setattr(fetch, 'MIRRORS', (DEAD, first.url, second.url))
    load_mnist()
    assert len(first.asked)==len(second.asked)==4
    assert {n: (cache/n).read_bytes() for n in held(cache)}==FILES


@pytest.mark.parametrize('claim', [len, lambda b: 2*len(b)], ids=['changed', 'broken off'])
def test_nothing_bad_stays(cache, mirror, monkeypatch, claim):
    bad = mirror(lambda b: b[:-1] + b'X', claim)
    monkeypatch.setattr(fetch, 'MIRRORS', (bad.url,))
    with pytest.warns(UserWarning, match='sample of 5,000'):
        load_mnist()
    assert held(cache)==[]


def test_killed_in_the_middle(cache, mirror):
    slow = mirror()
    slow.pause = .05
    code = (f'from minimlp import fetch; from pathlib import Path; fetch.MIRRORS = ({slow.url!r},); '
            f'fetch.SHA256 = {fetch.SHA256!r}; fetch.download(Path({str(cache)!r}))')
    p = subprocess.Popen([sys.executable, '-c', code], stderr=subprocess.DEVNULL)
    for _ in range(600):
        if slow.asked: break
        time.sleep(.1)
    time.sleep(.5)
    assert p.poll() is None, 'it was to be in the middle of a download'
    p.kill()
    p.wait()
    assert not set(FILES) & set(held(cache))
    with pytest.raises(FileNotFoundError, match="isn't on this machine"):
        load_mnist(download=False)


def test_no_network(cache):
    with pytest.warns(UserWarning, match='no mirror gave train-images') as said:
        splits = load_mnist()
    assert [len(x) for x, _ in splits]==[5000, 1000, 1000] and len(said)==1
    assert said[0].filename==__file__, 'the warning points at the line that called load_mnist'
    with pytest.raises(FileNotFoundError, match='sample=True'):
        load_mnist(download=False)


def test_no_network_needed(cache, silent):
    "Who names no download gets what is here; who asks for one gets full MNIST or an error"
    load_mnist(sample=True)
    assert locate()==locate('sample')==SAMPLE
    with pytest.raises(ConnectionError, match='no mirror gave train-images'):
        locate('download')


def test_damaged_cache_is_no_cache(cache, mirror, monkeypatch):
    for n, b in FILES.items():
        (cache/n).write_bytes(b)
    assert locate()==cache
    (cache/'t10k-labels-idx1-ubyte.gz').write_bytes(b'half')
    assert locate()==SAMPLE
    with pytest.raises(FileNotFoundError):
        load_mnist(download=False)
    good = mirror()
    monkeypatch.setattr(fetch, 'MIRRORS', (good.url,))
    load_mnist()
    assert good.asked==['/t10k-labels-idx1-ubyte.gz']


def test_environment_first(cache, monkeypatch):
    "A relative MINIMLP_DATA is found from the current folder and from below; a wrong one is told"
    (cache/'mine').symlink_to(SAMPLE)
    (cache/'a'/'b').mkdir(parents=True)
    monkeypatch.setenv('MINIMLP_DATA', 'mine')
    for d in ('.', 'a', 'a/b'):
        monkeypatch.chdir(cache/d)
        assert len(load_mnist()[0][0])==5000
        assert locate()==locate('download')==cache/'mine'
    monkeypatch.setenv('MINIMLP_DATA', 'yours')
    for read in (load_mnist, locate, lambda: locate('download')):
        with pytest.raises(FileNotFoundError, match='MINIMLP_DATA=yours'):
            read()
    assert locate('sample')==SAMPLE


# Files that unpack to far more than they should

ZEROS = gzip.compress(bytes(10**7))
IMAGES = 'train-images-idx3-ubyte.gz'


def refused(read, words, *args):
    "The most bytes that Python held until `read` refused, in these words"
    tracemalloc.start()
    with pytest.raises(ValueError, match=words):
        read(*args)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


@pytest.fixture
def spoilt(tmp_path):
    "`spoilt(name, bytes)`: a copy of the sample in which one file holds these bytes"
    def spoil(name, data):
        shutil.copytree(SAMPLE, tmp_path/'mnist')
        (tmp_path/'mnist'/name).write_bytes(data)
        return tmp_path/'mnist'
    return spoil


def test_idx_longer_than_it_says(spoilt):
    "The header says how much to read: one byte more is the proof, and 300 MB are never held"
    where = spoilt(IMAGES, FILES[IMAGES] + 30*ZEROS)
    words = r'\(6000, 28, 28\), which is 4,704,000 bytes; more bytes follow'
    size = 6000*784
    assert refused(read_idx, words, where/IMAGES) < 2*size
    for read in (load_mnist, load_share): # float32 has four bytes a pixel
        assert refused(read, words, where) < 8*size


def test_idx_that_promises_more_than_memory_has(tmp_path):
    (tmp_path/'lies').write_bytes(struct.pack('>2x2B3I', 8, 3, 2**32-1, 2**32-1, 2**32-1) + bytes(99))
    assert refused(read_idx, '; 99 bytes follow', tmp_path/'lies') < 5_000_000


def test_images_of_another_shape(spoilt):
    "14 × 56 pixels are 784, too"
    name = 't10k-images-idx3-ubyte.gz'
    where, images = spoilt(name, b''), read_idx(SAMPLE/name)
    write_idx(where/name, images.reshape(-1, 14, 56))
    for read in (load_mnist, load_test):
        refused(read, r'28 × 28 pixels, \(n, 28, 28\) or \(n, 784\); got \(1000, 14, 56\)', where)
    write_idx(where/name, images.reshape(-1, 784)) # rows already
    assert torch.equal(load_test(where)[0], load_test(SAMPLE)[0])


def test_pickle_that_asks_for_too_much(tmp_path, monkeypatch):
    "Refused before it is read: a string of 4 GB at once, and many parts that are small"
    path = tmp_path/'mnist.pkl.gz'
    path.write_bytes(gzip.compress(b'\x80\x04\x8d' + struct.pack('<Q', 4*10**9)) + 30*ZEROS)
    words = 'asks for more than 1,073,741,824 bytes'
    for read in (read_pickle, load_mnist, load_share):
        assert refused(read, words, path) < 5_000_000
    part = gzip.compress(b'B' + struct.pack('<I', 10**7)) + ZEROS + gzip.compress(b'0') # made, dropped
    path.write_bytes(gzip.compress(b'\x80\x03') + 20*part)
    monkeypatch.setattr(idx, 'MOST', 10**8)
    assert refused(read_pickle, 'asks for more than 100,000,000 bytes', path) < 50_000_000


def test_arrays_larger_than_their_pickle(tmp_path):
    "A few bytes can name the shape of an array of 12 GB, and no pixel of it"
    class Hollow:
        def __reduce__(self): return np.ndarray, ((2_000_000, 784), 'f8')
    path = tmp_path/'mnist.pkl.gz'
    path.write_bytes(gzip.compress(pickle.dumps([(Hollow(), np.arange(3))]*3)))
    refused(read_pickle, 'its arrays take 37,632,000,072|Unable to allocate', path)


def test_damaged_pickle(tmp_path):
    "The checksum at the end of the gzip data is compared, and nothing may follow the pickle"
    path = tmp_path/'mnist.pkl.gz'
    arrays = pickle.dumps([(np.random.rand(3, 784), np.arange(3))]*3)
    good = gzip.compress(arrays, compresslevel=0)
    path.write_bytes(good)
    assert len(load_mnist(path)[2][0])==3
    for bad in (good[:900] + bytes([good[900]^1]) + good[901:], good[:-9],
                gzip.compress(arrays + b'more')):
        path.write_bytes(bad)
        refused(load_mnist, 'expected a gzipped pickle of three pairs', path)


# Pickles that are right

def test_pickle_by_python_2():
    "`python2.pkl.gz` holds the sample's first 20 rows, by Python 2.7's cPickle and NumPy 1.16"
    want = load_mnist(sample=True)
    for (x, y), (xs, ys) in zip(load_mnist(TOP/'tests'/'python2.pkl.gz'), want):
        assert torch.equal(x, xs[:20]) and torch.equal(y, ys[:20])
        assert (x.dtype, y.dtype)==(torch.float32, torch.int64)


@pytest.mark.full
def test_pickle_of_full_mnist(tmp_path):
    "Pixels as float64 make the largest file that makes sense, and it isn't refused"
    want = load_mnist()
    path = tmp_path/'mnist.pkl.gz'
    with gzip.open(path, 'wb', compresslevel=1) as f:
        pickle.dump([(x.numpy().astype(np.float64), y.numpy()) for x, y in want], f)
    share = load_share(path, 1, 4)
    assert share.data==fingerprint(*want[0]) and share.n==50_000
    assert torch.equal(share.train[0], want[0][0][1::4]) and torch.equal(share.valid[1], want[1][1][1::4])
    for got, pair in zip(load_mnist(path), want):
        assert torch.equal(got[0], pair[0]) and torch.equal(got[1], pair[1])


# Shares and the sample

@pytest.mark.full
def test_fingerprint_of_full_mnist():
    "As it stands in the files of networks that were trained before"
    where = os.environ['MINIMLP_DATA']
    assert load_share(where).data==load_share(where, 2, 3).data=='50000 rows, fe23aa75'
    assert load_share(where, 1, 2, all_rows=True).data=='60000 rows, 1b58f14d'
    assert len(load_test(where)[0])==10_000


def test_fingerprint_of_the_sample():
    assert load_share(SAMPLE).data==load_share(SAMPLE, 2, 3).data=='5000 rows, d67d848e'
    assert load_share(SAMPLE, 1, 2, all_rows=True).data=='6000 rows, 924984a4'


@pytest.mark.full
def test_sample_is_made_as_documented(tmp_path):
    make_sample(os.environ['MINIMLP_DATA'], tmp_path)
    for name in fetch.SHA256:
        assert np.array_equal(read_idx(tmp_path/name), read_idx(SAMPLE/name)), name
