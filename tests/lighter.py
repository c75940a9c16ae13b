"""Make Quarto's site quick on a phone: `python3 tests/lighter.py FOLDER`, or without FOLDER as `post-render` in _quarto.yml.

Quarto's pages wait for a dozen scripts, two sheets of Bootstrap (500 kB each) and 2,000 icons, of which they use little. Here scripts and icons wait for
the page instead, sheets lose the rules that no page can use, and pictures load when they come near, in a place kept for them.
"""
import os, re, struct, sys
from pathlib import Path

TOKEN = re.compile(r'/\*.*?\*/|"(?:\\.|[^"\\])*"|\'(?:\\.|[^\'\\])*\'|[{};]', re.S)
MADE = ('aa-', 'bs-', 'quarto-', 'tippy-', 'headroom') # scripts put the names of these classes together, and of icons, bi-NAME


def blocks(css):
    "The statements of a sheet: what stands before the braces, and between them (None if there are none)"
    start = depth = 0
    for m in TOKEN.finditer(css):
        if m[0]=='{':
            depth += 1
            if depth==1: opened = m.start()
        if m[0]=='}':
            depth -= 1
            if depth==0: yield css[start:opened].strip(), css[opened+1:m.start()]
        if m[0] in ';}' and depth==0:
            if m[0]==';': yield css[start:m.end()].strip(), None
            start = m.end()


def can_match(selectors, words):
    "May one of these selectors match? Each class and id that it needs has to be a word of a page or of a script"
    bare = re.sub(r'/\*.*?\*/|:not\((?:[^()]|\([^()]*\))*\)|\[[^\]]*\]', '', selectors, flags=re.S)
    for selector in bare.split(','):
        names = [n.replace('\\', '') for n in re.findall(r'[.#]((?:\\.|[\w-])+)', selector)]
        if all(n.removeprefix('bi-') in words or n in words or n.startswith(MADE) for n in names): return True
    return False


def used(css, words):
    "A sheet without the rules that can't match"
    kept = []
    for head, body in blocks(css):
        if body is None: kept.append(head)
        elif re.match(r'(?:/\*.*?\*/\s*)*@(media|supports|layer|container)\b', head, re.S):
            inner = used(body, words)
            if inner: kept.append(f'{head}{{{inner}}}')
        elif head.startswith('@') or can_match(head, words): kept.append(f'{head}{{{body}}}')
    return ''.join(kept)


def picture(tag, folder, first):
    "An `<img>` with the size of its PNG, which keeps its place, and loaded when it comes near unless it is the first"
    src = re.search(r'\ssrc="([^":]+\.png)"', tag)
    if src and 'width=' not in tag and (folder/src[1]).is_file():
        width, height = struct.unpack('>II', (folder/src[1]).read_bytes()[16:24])
        tag = tag.replace('<img', f'<img width="{width}" height="{height}"', 1)
    return tag if first or 'loading=' in tag else tag.replace('<img', '<img loading="lazy"', 1)


def lighter(html, folder):
    "A page whose scripts and pictures wait until it is shown"
    head, body = html.split('</head>', 1)
    head = re.sub(r'<script src="([^"]*)">', r'<script src="\1" defer>', head) # they run in order, before DOMContentLoaded
    late = r"""<link href="\1" rel="stylesheet" media="print" onload="this.media='all'">"""
    head = re.sub(r'<link href="([^"]*(?:icons|tippy)\.css)" rel="stylesheet">', late, head)
    start = body.find('<main')
    first = body.find('<img', start)
    body = re.sub(r'<img\b[^>]*>', lambda m: picture(m[0], folder, m.start()==first), body)
    return f'{head}</head>{body}'


def main(site):
    "Rewrite pages and sheets of a site in their place"
    pages, scripts = sorted(site.rglob('*.html')), sorted(site.rglob('*.js'))
    texts = [p.read_text(encoding='utf-8') for p in [*pages, *scripts]]
    words = set(re.findall(r'[\w-]+', ' '.join(texts)))
    for page, text in zip(pages, texts): page.write_text(lighter(text, page.parent), encoding='utf-8')
    for sheet in (site/'site_libs'/'bootstrap').glob('*.css'):
        sheet.write_text(used(sheet.read_text(encoding='utf-8'), words), encoding='utf-8')


if __name__=='__main__': main(Path((sys.argv[1:] or [os.environ['QUARTO_PROJECT_OUTPUT_DIR']])[0]))
