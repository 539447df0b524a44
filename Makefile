# Everything sets itself up. `make demo` first; then `make check` and `make test`.
FIRMWARE ?= bios
BMC ?= ipmi
KUBECONFIG ?=
BIN := build/venv/bin

.PHONY: help setup check test test-cluster demo ramdisk image bench bench-write bench-ramdisk bench-provision clean

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

setup: ## Debian packages and Python packages (build/venv)
	@tools/setup

check: ## format, lint, types, import contracts, unit tests: under a minute
	@tools/setup --venv
	@tools/run-tests check

test: setup ## everything: check, contract, system, disk and VM tests, both roads of the demo
	@tools/run-tests all

test-cluster: ## contract suite and lifecycle scenarios on the cluster of KUBECONFIG=FILE
	@tools/setup --venv
	@tools/run-tests cluster "$(KUBECONFIG)"

ramdisk: setup ## build/ramdisk: kernel and initramfs with the agent
	@ramdisk/build

image: setup ## build/image: the demo's operating system
	@$(BIN)/python -m billet_lab.os_image --out build/image

demo: setup ramdisk image ## a virtual machine from its BMC to a running system
	@$(BIN)/billet demo --firmware $(FIRMWARE) --bmc $(BMC)

bench: setup ## figures as ratios to baselines of the same run
	@$(BIN)/python tools/bench/run.py

bench-write: setup ## an image onto a disk: the agent, the usual way, and what the machine allows
	@$(BIN)/python tools/bench/write.py

bench-ramdisk: setup ramdisk ## size, memory and seconds of the ramdisk, next to an empty init
	@$(BIN)/python tools/bench/ramdisk.py

bench-provision: setup ramdisk image ## a machine from its registration to the proof of its image
	@$(BIN)/python tools/bench/provision.py

clean: ## remove build/
	rm -rf build
