# `make` lists the targets. `make run` needs only make and Python 3.11 or newer.

PYTHON ?= python3
PORT ?= 8000
VALENCE_HOME ?= .valence
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
UV := $(or $(shell command -v uv),.tools/bin/uv)
CLUSTER ?= valence
NAMESPACE ?= valence
INGRESS_IMAGE ?= registry.k8s.io/ingress-nginx/controller:v1.15.1
SBOM ?= dist/sbom.json
SEED ?= 1
SEEDS ?= 10
# Select the cluster, whatever the current context is; fail if it does not exist.
USE_CLUSTER = kind export kubeconfig --name $(CLUSTER)
# For `docker build`, such as BUILD_FLAGS='--build-arg BASE=python:3.11-slim-bookworm@sha256:…'.
BUILD_FLAGS ?=
REVISION ?= $(shell git rev-parse HEAD 2>/dev/null)
IMAGES := auth inference batch-worker migrate
# The tag is a hash of the content: changed files make new images and new pods.
ifndef TAG
TAG := $(shell git ls-files -co --exclude-standard -- Dockerfile requirements.lock alembic services ml \
  | LC_ALL=C sort | xargs cat 2>/dev/null | sha256sum | cut -c1-12)
endif
PYTEST = $(BIN)/pytest -n 2 --dist worksteal --timeout 300
SLOW := (e2e or e2e_full or slow_faults)
# Without byte code every test process would compile all tests again.
unexport PYTHONDONTWRITEBYTECODE
MEMBERS := $(addprefix services/,common auth inference batch-worker) ml cli

.DEFAULT_GOAL := help
.PHONY: help run install clean test faults faults-full coverage chaos check format docs sbom lock
.PHONY: cluster images deploy undeploy cluster-down e2e e2e-full chart

help:
	@awk -F ':.*## ' '/^##@/ {printf "\n%s\n", substr($$0, 5)} \
	  /^[a-z0-9-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

##@ Run
run: $(STAMP) ## Serve everything on http://127.0.0.1:$PORT (8000), data in $VALENCE_HOME (.valence)
	@exec $(BIN)/valence local --port "$(PORT)" --home "$(VALENCE_HOME)"

install: $(STAMP) ## Create .venv from the lock; the other targets do it themselves

clean: ## Remove .venv, tools and caches; keep the data in .valence
	rm -rf $(VENV) .tools .mypy_cache .pytest_cache .ruff_cache .coverage*

##@ Check
test: $(STAMP) ## Units, HTTP and matrices; a test that hangs fails after five minutes
	$(PYTEST) -m "not faults and not $(SLOW)"

faults: $(STAMP) ## What kills and freezes Postgres, Redis and processes, in its short forms
	$(PYTEST) -m "faults and not $(SLOW)"

faults-full: $(STAMP) ## The long forms of the faults; an hour
	$(BIN)/pytest -m slow_faults -s

coverage: $(STAMP) ## The tests of test and faults, with their coverage; it must not fall
	$(PYTEST) -m "not $(SLOW)" --cov

chaos: $(STAMP) ## Batches of 100,000 texts under a fault a second, for $SEEDS (10) seeds from $SEED (1)
	PYTHONPATH=tests $(BIN)/python -m chaos --first $(SEED) --seeds $(SEEDS)

check: $(STAMP) ## Lint, types, import contracts and security scanners
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python .ci/scan.py $(UV)

format: $(STAMP) ## Format the sources and fix lint
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

e2e: $(STAMP) ## Test the installation on the current kind cluster; e2e-full takes half an hour
	VALENCE_REQUIRE=kind $(BIN)/pytest tests/e2e -m e2e -s

e2e-full: $(STAMP)
	VALENCE_REQUIRE=kind $(BIN)/pytest tests/e2e -m "e2e or e2e_full" -s

##@ Cluster
cluster: ## Create a kind cluster with ingress-nginx and metrics-server
	kind get clusters | grep -qx $(CLUSTER) || kind create cluster --name $(CLUSTER) --config k8s/kind.yaml
	$(USE_CLUSTER)
	sed 's|image: .*|image: $(INGRESS_IMAGE)|' k8s/ingress-nginx.yaml | kubectl apply -f -
	kubectl get apiservice v1beta1.metrics.k8s.io >/dev/null 2>&1 || kubectl apply -f k8s/metrics-server.yaml
	kubectl -n ingress-nginx rollout status deployment/ingress-nginx-controller --timeout=180s

images: ## Build the four images (tag $TAG, more flags $BUILD_FLAGS) and load them into the cluster
	for image in $(IMAGES); do \
	  docker build --quiet $(BUILD_FLAGS) --build-arg REVISION=$(REVISION) \
	    --target $$image --tag valence-$$image:$(TAG) . || exit; done
	docker images --filter reference='valence-*:$(TAG)' --format '{{.Repository}}:{{.Tag}} {{.Size}}'
	kind load docker-image --name $(CLUSTER) $(IMAGES:%=valence-%:$(TAG))

deploy: images ## Install or upgrade Valence on the cluster: https://valence.localhost
	$(USE_CLUSTER)
	sed 's|name: valence$$|name: $(NAMESPACE)|' k8s/namespace.yaml | kubectl apply -f -
	k8s/certificate.sh $(NAMESPACE)
	helm upgrade --install valence charts/valence --namespace $(NAMESPACE) --wait --timeout 5m \
	  --values charts/valence/values-dev.yaml --set-string image.tag=$(TAG) $(HELM_FLAGS)

undeploy: ## Uninstall Valence; keep its volumes and Secrets
	$(USE_CLUSTER)
	helm uninstall valence --namespace $(NAMESPACE) --wait

cluster-down: ## Delete the cluster and everything in it
	kind delete cluster --name $(CLUSTER)

##@ Ship
chart: $(STAMP) ## Generate the chart's schema and README, and k8s/install
	$(BIN)/python charts/generate.py

docs: $(STAMP) ## Generate OpenAPI, the settings page and the reliability page from the code
	$(BIN)/python -m tools.docs
	$(BIN)/python -m tools.reliability

sbom: $(STAMP) ## Write dist/sbom.json: the locked packages, as CycloneDX
	@mkdir -p "$(dir $(SBOM))"
	$(UV) tool run --quiet --from cyclonedx-bom==7.5.0 cyclonedx-py requirements \
	  --output-reproducible --output-file "$(SBOM)" requirements.lock

lock: $(STAMP) ## Resolve requirements.lock again
	$(UV) pip compile pyproject.toml --group dev --universal --generate-hashes \
	  --no-emit-index-url --custom-compile-command "make lock" \
	  $(addprefix --no-emit-package valence-,common auth inference batch-worker ml) \
	  --no-emit-package valence --quiet --output-file requirements.lock

$(STAMP): requirements.lock $(addsuffix /pyproject.toml,$(MEMBERS))
	@$(PYTHON) cli/valence/local/install.py $(VENV) $(STAMP)
