# make help lists what there is. Everything lives in .venv; `make clean` undoes it all.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
MARK   ?= not install

help:            ## list these commands
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -e 's/:.*##/\t/' | expand -t 12

demo: $(VENV)/lib.ok  ## run every version of the network on real digits, check every gradient, and train for a few seconds
	@$(BIN)/minimlp_verify
	@echo
	@rm -rf runs/demo
	@$(BIN)/minimlp_train --preset quick --data sample --out runs/demo

test: $(VENV)/dev.ok  ## run every chapter and every test; on full MNIST where MINIMLP_DATA names it
	@$(BIN)/python -m pytest -m '$(MARK)'

check: $(VENV)/dev.ok  ## all that `make test` does, and the library installed into a clean environment (some minutes more)
	@$(MAKE) -s test MARK=

quick: $(VENV)/dev.ok  ## after an edit of one page, in seconds: make quick CHAPTER=02 (or CHAPTER=suspects)
	@page=$$(find nbs -name '$(CHAPTER)*.ipynb' -not -path '*/.*' | head -1); test -n "$(CHAPTER)" -a -n "$$page" || \
	  { echo 'Say which page, as in make quick CHAPTER=02; there are:'; find nbs -name '*.ipynb' -not -path '*/.*' | sort; exit 2; }; \
	  $(BIN)/nbdev_export && MINIMLP_DATA=minimlp/mnist $(BIN)/nbdev_test --path "$$page" && $(BIN)/python -m pytest -n 0 tests/test_style.py -k "$$(basename $$page .ipynb)"

lab: $(VENV)/dev.ok  ## open the chapters in JupyterLab
	@$(BIN)/jupyter lab nbs

docs: $(VENV)/dev.ok  ## build the site into _docs, with Quarto where it is on the PATH and by pip packages alone otherwise
	@if command -v quarto >/dev/null; then $(BIN)/nbdev_docs; else $(BIN)/python tests/docs.py _docs; fi
	@echo "The site is in _docs; make preview shows it."

preview: docs    ## serve the site on this machine, and build it anew on change
	@$(BIN)/python tests/docs.py --preview _docs

play: $(VENV)/dev.ok  ## train the network of the page that draws digits, and put it there
	@$(BIN)/minimlp_train --preset quick --data download --out runs/play
	@$(BIN)/minimlp_export runs/play/weights.safetensors nbs/play-weights.js

prepare: $(VENV)/dev.ok  ## after an edit: export the library, clean the notebooks, write README.md
	@$(BIN)/nbdev_export && $(BIN)/nbdev_clean && $(BIN)/python tests/docs.py --menu . && $(MAKE) -s readme

readme: $(VENV)/dev.ok  ## write README.md from nbs/index.ipynb
	@$(BIN)/python tests/readme.py > README.md.new && mv README.md.new README.md

outputs: $(VENV)/dev.ok  ## run every chapter on full MNIST and store what it prints (MINIMLP_DATA, the cache or a download)
	@$(BIN)/minimlp_verify --data download --out nbs/images/verify.png
	@$(BIN)/python -c "from minimlp.draw import draw_ladder; draw_ladder().savefig('nbs/images/ladder.png', dpi=110)"
	@CI=true $(BIN)/jupyter nbconvert --to notebook --inplace --execute $$(find nbs -name '*.ipynb' -not -path '*/.*' | sort)
	@$(MAKE) -s prepare

bugs: $(VENV)/dev.ok  ## train with every bug of chapter 9 and store the table (a few minutes)
	@$(BIN)/python -c "from minimlp.runs.bugs import measure; measure('nbs/bugs.json')"

published: $(VENV)/dev.ok  ## train all networks of the published table and store their errors (hours, most of them for chapter 10; goes on where it was stopped)
	@$(BIN)/minimlp_train --table nbs/published.json --data download

bench: $(VENV)/dev.ok  ## measure the fast model beside its peers, which are installed for it, and store the figures (bound to eight minutes of rounds)
	@$(BIN)/python -m pip install -q -e '.[bench]' -c constraints.txt
	@$(BIN)/minimlp_bench --data download --out nbs/bench.json && mv nbs/bench.png nbs/images/bench.png

clean:           ## remove .venv and everything else that was made here
	rm -rf $(VENV) runs/demo _proc _docs _shots build dist *.egg-info .pytest_cache .hypothesis .quarto
	find . '(' -name __pycache__ -o -name .ipynb_checkpoints ')' -prune -exec rm -rf {} +

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; v >= (3, 10) or sys.exit("minimlp needs Python 3.10 or later, and $(PYTHON) is %d.%d; say make PYTHON=python3.12" % v)'
	@echo "Setting up $(VENV). This happens once, and PyTorch is a large download."
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo 'Python could not make $(VENV); on Debian and Ubuntu it needs the package python3-venv.'; exit 1; }

$(VENV)/lib.ok: $(VENV)/bin/python settings.ini setup.py constraints.txt
	@$(BIN)/python -m pip install -e . -c constraints.txt
	@touch $@

$(VENV)/dev.ok: $(VENV)/bin/python settings.ini setup.py constraints.txt
	@$(BIN)/python -m pip install -e '.[dev]' -c constraints.txt
	@touch $@ $(VENV)/lib.ok

.PHONY: help demo test check quick lab docs preview play prepare readme outputs bugs published bench clean
.DEFAULT_GOAL := help
