"""Build the site from the notebooks, by pip packages alone: `python tests/docs.py FOLDER`; with --preview, serve FOLDER and build it anew on change.
With --menu, put chapters that the sidebar lacks into its group "Speed and scale", in FOLDER/_quarto.yml (`make prepare` does).

nbdev processes the notebooks (links to names, show_doc, the titles), and smalldocs renders what comes out, both from the same _quarto.yml. nbdev
numbers files and Quarto gives them other names (01_forward.ipynb becomes forward.html); here the files themselves are renamed before rendering, also for
Quarto, which calls this with --rename (`pre-render` in _quarto.yml).
"""
import json, os, re, shutil, subprocess, sys, threading, time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

os.environ.pop('VIRTUAL_ENV', None) # another environment's, if one is active: IPython would warn in every process


def plain(name): return re.sub(r'^\d+[a-z]?_', '', name)


def rename(proc):
    "Take the numbers off the names of the pages, and off all links to them"
    names = {p.name: plain(p.name) for p in proc.glob('*.ipynb') if plain(p.name)!=p.name} # chapters stand on top
    for p in [*proc.rglob('*.ipynb'), *proc.glob('*.yml')]:
        text = p.read_text(encoding='utf-8')
        for old, new in names.items(): text = re.sub(rf'(?<!\w){re.escape(old)}', new, text)
        text = re.sub(r'"output-file: \S+\\n",\s*', '', text) # smalldocs takes the name of the file
        p.write_text(text, encoding='utf-8')
    for old, new in names.items(): (proc/old).replace(proc/new)


def for_quarto(proc):
    "Rename, and make HTML that a cell printed part of its page: Quarto takes it for a widget, which it serves with scripts of another site"
    rename(proc)
    for p in proc.rglob('*.ipynb'):
        nb = json.loads(p.read_text(encoding='utf-8'))
        shown = [o['data'] for c in nb['cells'] for o in c.get('outputs', []) if 'text/html' in o.get('data', {})]
        for data in shown: data['text/markdown'] = ['```{=html}\n', *data.pop('text/html'), '\n```']
        if shown: p.write_text(json.dumps(nb), encoding='utf-8')


def build(out):
    from nbdev.config import get_config
    from nbdev.serve import proc_nbs
    cfg = get_config()
    proc = cfg.config_path/'_proc'
    shutil.rmtree(proc, ignore_errors=True)
    proc_nbs()
    rename(proc)
    yml = proc/'_quarto.yml'
    yml.write_text(re.sub(r'theme: \{.*\}', 'theme: {light: default, dark: slate}', yml.read_text(encoding='utf-8')), encoding='utf-8') # it compiles no Sass
    r = subprocess.run([f'{sys.prefix}/bin/smalldocs', 'render', '--quiet', str(proc)], stderr=subprocess.PIPE, text=True)
    told = [l for l in r.stderr.splitlines() if not re.search(r'format\.html\.(grid|respect-user-color-scheme|highlight-style|html-math-method) is ignored|project\.(pre|post)-render', l)] # these are for Quarto
    if told: print(*told, sep='\n', file=sys.stderr)
    if r.returncode: sys.exit(r.returncode)
    made = next(proc/d for d in ('_site', '_docs', cfg.doc_path.name) if (proc/d/'index.html').is_file())
    shutil.rmtree(out, ignore_errors=True)
    shutil.move(made, out)


def menu(top):
    "New chapters join the sidebar by themselves; one that belongs elsewhere is moved by hand"
    yml = top/'_quarto.yml'
    text = yml.read_text(encoding='utf-8')
    new = [p.name for p in sorted((top/'nbs').glob('[0-9]*.ipynb')) if p.name not in text]
    if not new: return
    group = '      - section: Speed and scale\n        contents: ['
    if group not in text: text = text.replace('      - section: Appendices\n', f'{group}]\n      - section: Appendices\n')
    head, tail = text.split(group)
    old, tail = tail.split(']', 1)
    yml.write_text(head + group + ', '.join(filter(None, [old, *new])) + ']' + tail, encoding='utf-8')


def preview(out, port=8000):
    "Serve on loopback alone, look once a second whether a source has changed, and build in a process of its own"
    from nbdev.config import get_config
    top = get_config().config_path
    stamp = lambda: max(p.stat().st_mtime for p in [top/'_quarto.yml', *(p for p in (top/'nbs').rglob('*') if p.suffix in ('.ipynb', '.css', '.js'))])
    server = ThreadingHTTPServer(('127.0.0.1', port), partial(SimpleHTTPRequestHandler, directory=str(out)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(f'http://127.0.0.1:{port}/ (Ctrl-C stops)')
    seen = stamp()
    while True:
        time.sleep(1)
        if stamp()!=seen:
            seen = stamp()
            print('building …', flush=True)
            subprocess.run([sys.executable, __file__, str(out)])


if __name__=='__main__':
    *flags, out = sys.argv[1:]
    try: {'--preview': preview, '--menu': menu, '--rename': for_quarto}.get(*flags or [''], build)(Path(out).absolute())
    except KeyboardInterrupt: pass
