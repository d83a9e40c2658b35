# Everything starts here. `make help` says what there is.
SHELL := /bin/bash
BUILD := build
JOBS ?= $(shell nproc)
# Tests run side by side on the same cores.
test asan tsan: export OMP_WAIT_POLICY := passive

.PHONY: help setup build demo test asan tsan fuzz format lint bench-reward bench-rollout bench-learner bench-pipelined soak build-cuda test-cuda smollm2 kill-default kill-learner k8s-check clean

help:  ## Show this list
	@awk -F':.*## ' '/^[a-z0-9-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup:  ## Install what building needs (Debian packages, LibTorch into .deps/); does nothing twice
	@command -v bash >/dev/null || { echo "setup: bash is missing"; exit 1; }
	@deploy/setup/install.sh

build: setup  ## Build everything into build/bin
	@command -v cmake >/dev/null || { echo "build: cmake is missing"; exit 1; }
	@[ -f $(BUILD)/build.ninja ] || cmake --preset release > $(BUILD).configure.log 2>&1 || { cat $(BUILD).configure.log; exit 1; }
	@rm -f $(BUILD).configure.log
	@cmake --build $(BUILD) -j $(JOBS)

demo: build  ## Run the main job: five services, two curriculum stages of Countdown, a trained model and a summary page
	@$(BUILD)/bin/e3 run deploy/jobs/countdown.yaml --state state

test: build  ## Build and run all tests (parity tests fetch PyTorch and transformers on first use)
	@deploy/setup/test_tools.sh
	@cd $(BUILD) && ctest --output-on-failure -j $(JOBS)

asan: setup  ## Torch-free tests under AddressSanitizer and UndefinedBehaviorSanitizer
	@cmake --preset asan > /dev/null && cmake --build build-asan -j $(JOBS) --target unit_tests
	@cd build-asan && ctest --output-on-failure -j $(JOBS)

tsan: setup  ## The tests without gRPC, model files and LibTorch under ThreadSanitizer
	@cmake --preset tsan > /dev/null && cmake --build build-tsan -j $(JOBS) --target engine_test engine_thread_test batch_pipeline_test kernels_test learner_core_test reward_test reward_pool_test curriculum_test
	@cd build-tsan && OMP_NUM_THREADS=1 ctest --output-on-failure -R 'engine_test|engine_thread_test|batch_pipeline_test|kernels_test|learner_core_test|reward_test|reward_pool_test|curriculum_test'

FUZZ_SECONDS ?= 60
fuzz: setup  ## Fuzz the math verifier for FUZZ_SECONDS (60) on all cores; what it finds is kept in build-fuzz/
	@deploy/setup/fuzz_tools.sh
	@cmake --preset fuzz > /dev/null && cmake --build build-fuzz -j $(JOBS)
	@tests/fuzz/run.sh $(FUZZ_SECONDS) $(JOBS)

build-cuda: setup  ## Build everything into build-cuda/bin with GPUs (builds without one; run there with --device cuda)
	@deploy/setup/cuda_tools.sh
	@cmake --preset cuda > /dev/null && cmake --build build-cuda -j $(JOBS)

test-cuda: build-cuda  ## Run the tests that take a device on this machine's GPU
	@deploy/setup/test_tools.sh
	@tests/cuda.sh

smollm2: build  ## A real model on real problems: SFT and GRPO of SmolLM2-135M on GSM8K (about half an hour on two cores)
	@deploy/setup/test_tools.sh
	@deploy/jobs/smollm2/run.sh

bench-reward: build  ## The reward service against math-verify: verdicts a second, bombs, Countdown, gRPC
	@deploy/setup/bench_tools.sh reward
	@cmake --build $(BUILD) -j $(JOBS) --target bench_reward
	@python3 bench/reward/run.py

bench-rollout: build  ## The rollout engine against transformers, llama.cpp and the matrix products alone (about ten minutes)
	@deploy/setup/test_tools.sh && deploy/setup/bench_tools.sh rollout
	@[ -f .deps/models/smollm2/model.safetensors ] || .deps/parity/bin/python deploy/models/convert_smollm2.py .deps/models/smollm2
	@cmake --build $(BUILD) -j $(JOBS) --target bench_rollout
	@python3 bench/rollout/run.py

bench-learner: build  ## The learner's update against transformers + AdamW and the matrix products alone (about ten minutes)
	@deploy/setup/test_tools.sh
	@[ -f .deps/models/smollm2/model.safetensors ] || .deps/parity/bin/python deploy/models/convert_smollm2.py .deps/models/smollm2
	@cmake --build $(BUILD) -j $(JOBS) --target bench_learner
	@python3 bench/learner/run.py

bench-pipelined: build  ## The default job synchronous and with rollouts ahead, three seeds each (about fifteen minutes)
	@python3 bench/learner/pipelined.py

SOAK_SECONDS ?= 1200
soak: build  ## A rollout server under 64 clients that cancel, vanish and read slowly, for SOAK_SECONDS (1200)
	@cmake --build $(BUILD) -j $(JOBS) --target rollout_soak
	@tests/soak/rollout.sh $(SOAK_SECONDS)

kill-default: build  ## kill -9 each service in turn during the default job
	@python3 tests/e2e/kill_test.py default

kill-learner: build  ## kill -9 the learner, then one of two ranks, at 20 random moments of a 30-step job
	@python3 tests/e2e/learner_test.py 20
	@python3 tests/e2e/learner_test.py 20 2

k8s-check:  ## Apply the manifests to a real Kubernetes API server, strictly (builds one on first use)
	@k8s/check.sh

format:  ## Format the C++ code
	@git ls-files '*.h' '*.cc' | xargs clang-format-14 -i

lint: build  ## clang-tidy over our own code
	@git ls-files '*.cc' | grep -v '^tests/' | xargs -P $(JOBS) -n 4 clang-tidy-14 -p $(BUILD) --quiet

clean:  ## Remove what was built (not what was installed)
	rm -rf build build-asan build-tsan build-debug build-fuzz build-cuda
