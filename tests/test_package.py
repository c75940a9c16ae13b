"The package as people install it: a wheel and an sdist, in a clean environment with only what they declare"
import json, os, re, subprocess, sys, tarfile, venv, zipfile

import pytest

from conftest import TOP

pytestmark = pytest.mark.install

CHECK = '''
import importlib, importlib.util, json, sys
from minimlp.data import load_mnist
import pkgutil, minimlp
mods = {m.name: importlib.import_module(m.name).__file__ for m in pkgutil.walk_packages(minimlp.__path__, 'minimlp.') if m.name!='minimlp._modidx'}
print(json.dumps(dict(rows=[len(x) for x, _ in load_mnist(sample=True)], where=mods['minimlp.data'], mods=sorted(mods), fastcore=importlib.import_module('fastcore').__version__,
                      extra=[m for m in 'nbdev jupyter IPython ipykernel nbclient pytest'.split() if importlib.util.find_spec(m)])))
'''


def sh(*cmd, cwd, ok=True):
    env = {k: v for k, v in os.environ.items() if k not in ('MINIMLP_DATA', 'PYTHONPATH', 'VIRTUAL_ENV')}
    r = subprocess.run([str(c) for c in cmd], cwd=cwd, capture_output=True, text=True, env=env)
    assert r.returncode==0 or not ok, r.stdout + r.stderr
    return r


@pytest.fixture(scope='module')
def dist(tmp_path_factory):
    "Wheel and sdist, built from the files that git knows"
    src, out = tmp_path_factory.mktemp('src'), tmp_path_factory.mktemp('dist')
    files = sh('git', 'ls-files', '--cached', '--others', '--exclude-standard', cwd=TOP).stdout.split()
    sh('tar', 'cf', out/'src.tar', *[f for f in files if (TOP/f).is_file()], cwd=TOP)
    sh('tar', 'xf', out/'src.tar', cwd=src)
    sh(sys.executable, '-m', 'build', '--outdir', out, cwd=src) # the sdist, and the wheel from the sdist
    return next(out.glob('*.whl')), next(out.glob('*.tar.gz'))


@pytest.fixture(scope='module')
def clean(dist, tmp_path_factory):
    "A new environment with the wheel and nothing else; PyTorch at the version of constraints.txt"
    env = tmp_path_factory.mktemp('env')
    venv.create(env, with_pip=True)
    torch = next(l for l in (TOP/'constraints.txt').read_text().splitlines() if l.startswith('torch=='))
    (env/'torch.txt').write_text(torch)
    sh(env/'bin'/'python', '-m', 'pip', 'install', '-q', '-c', env/'torch.txt', dist[0], cwd=env)
    return env


def test_contents(dist):
    whl, sdist = zipfile.ZipFile(dist[0]).namelist(), [n.split('/', 1)[-1] for n in tarfile.open(dist[1]).getnames()]
    code = [str(p.relative_to(TOP)) for p in (TOP/'minimlp').rglob('*.py')]
    data = [f'minimlp/mnist/{p.name}' for p in (TOP/'minimlp'/'mnist').iterdir()]
    for names in (whl, sdist): assert not set(code + data) - set(names)
    assert {'settings.ini', 'setup.py', 'README.md', 'LICENSE'} <= set(sdist)
    assert not [n for n in whl if not re.match(r'minimlp(/|-\d)', n)], 'the wheel holds the package and nothing else'


@pytest.mark.parametrize('fastcore', ['>=2', '>=1.13,<2', '==1.5.29'])
def test_clean_environment(clean, tmp_path, fastcore):
    sh(clean/'bin'/'python', '-m', 'pip', 'install', '-q', f'fastcore{fastcore}', cwd=tmp_path)
    (tmp_path/'check.py').write_text(CHECK)
    said = json.loads(sh(clean/'bin'/'python', 'check.py', cwd=tmp_path).stdout)
    assert set(said['mods'])>={'minimlp.'+str(p.relative_to(TOP/'minimlp').with_suffix('')).replace('/', '.') for p in (TOP/'minimlp').rglob('[a-z]*.py')}
    assert said['rows']==[5000, 1000, 1000] and said['extra']==[] and str(clean) in said['where']
    assert said['fastcore'].startswith(fastcore[2:] if fastcore[:2]=='==' else fastcore[2])
    r = sh(clean/'bin'/'minimlp_verify', '--data', 'sample', '--n', 500, '--out', tmp_path/'v.png', cwd=tmp_path)
    assert '4 of 4 rungs are right' in r.stdout and (tmp_path/'v.png').read_bytes()[1:4]==b'PNG'
    r = sh(clean/'bin'/'minimlp_train', '--data', 'sample', '--epochs', 2, '--out', 'trained', cwd=tmp_path)
    assert re.search(r'[89]\d\.\d\d% right', r.stdout) and (tmp_path/'trained'/'weights.safetensors').is_file(), r.stdout
    r = sh(clean/'bin'/'minimlp_predict', 'trained/weights.safetensors', TOP/'tests'/'seven.png', cwd=tmp_path)
    assert re.search(r'^7 .*%', r.stdout, re.M) and (tmp_path/'seven-seen.png').read_bytes()[1:4]==b'PNG'
    help = sh(clean/'bin'/'minimlp_verify', '--help', cwd=tmp_path).stdout
    for option in ('--data', '--n', '--nh', '--seed', '--device', '--out'): assert option in help
    r = sh(clean/'bin'/'minimlp_verify', '--data', 'no/such/place', cwd=tmp_path, ok=False)
    assert r.returncode==2 and 'nothing is there' in r.stderr and 'Traceback' not in r.stderr
