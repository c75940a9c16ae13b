"Print README.md, made from nbs/index.ipynb; needs no Quarto"
import re
from pathlib import Path

import nbformat
from nbconvert import MarkdownExporter
from traitlets.config import Config

nbs = Path(__file__).parent.parent/'nbs'

def readme() -> str:
    cfg = Config({'RegexRemovePreprocessor': {'enabled': True, 'patterns': [r'#\s*\| hide']},
                  'MarkdownExporter': {'preprocessors': ['nbconvert.preprocessors.RegexRemovePreprocessor']}})
    nb = nbformat.read(nbs/'index.ipynb', as_version=4)
    nb.metadata.language_info = {'name': 'python'}
    for c in nb.cells:
        if '#| echo: false' in c.source: c.source = ''
    md, _ = MarkdownExporter(config=cfg).from_notebook_node(nb)
    md = re.sub(r'^```python\s*```\n', '', md, flags=re.M)                # a cell that shows what it printed, and not itself
    md = re.sub(r'^#\| .*\n', '', md, flags=re.M)                         # directives of cells
    md = re.sub(r'<div class="minimlp-\w+"[^>]*><img src="([^"]+)"[^>]* alt="([^"]+)"></div>', r'![\2](\1)', md) # a still picture of what moves on the site
    md = re.sub(r'^<script .*</script>\n?', '', md, flags=re.M)
    md = re.sub(r'\]\((images/|[\w/]+\.ipynb)', r'](nbs/\1', md)             # seen from the top of the project
    return re.sub(r'\n{3,}', '\n\n', md).strip() + '\n'

if __name__=='__main__': print(readme(), end='')
