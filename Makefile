# Each target makes what it needs, in environments of its own.
PYTHON ?= python3
DEMO_VENV ?= .venv
TEST_VENV ?= .venv-test
BUNDLE := bundles/brain_mri_classification
# make demo DATA=/path/to/images ARGS="--patient_column case --epochs 5"
DATA ?=
ARGS ?=

.PHONY: demo test test-slow bundles docs clean

demo: $(DEMO_VENV)/.installed
	$(DEMO_VENV)/bin/python -m monai.bundle run --config_file $(BUNDLE)/configs/train.json \
		$(if $(DATA),--dataset_dir "$(DATA)") $(ARGS)

test: $(TEST_VENV)/.installed
	$(TEST_VENV)/bin/ruff check .
	$(TEST_VENV)/bin/ruff format --check .
	$(TEST_VENV)/bin/mypy medtl_monai
	$(TEST_VENV)/bin/python -m pytest -n 2 --dist loadfile -m "not slow"

test-slow: $(TEST_VENV)/.installed
	$(TEST_VENV)/bin/python -m pytest -n 2 --dist loadfile -m slow

# the bundles' configurations, from recipes/
bundles: $(TEST_VENV)/.installed
	$(TEST_VENV)/bin/python recipes/render.py

# what is rendered from code and from committed results
docs: $(TEST_VENV)/.installed
	$(TEST_VENV)/bin/python docs/render.py
	$(TEST_VENV)/bin/python docs/pictures.py

$(DEMO_VENV)/.installed: setup.cfg constraints.txt
	$(PYTHON) -m venv $(DEMO_VENV)
	$(DEMO_VENV)/bin/python -m pip install --disable-pip-version-check -c constraints.txt -e .
	touch $@

$(TEST_VENV)/.installed: setup.cfg constraints.txt
	$(PYTHON) -m venv $(TEST_VENV)
	$(TEST_VENV)/bin/python -m pip install --disable-pip-version-check -c constraints.txt -e ".[test]"
	touch $@

clean:
	rm -rf $(DEMO_VENV) $(TEST_VENV) build *.egg-info
