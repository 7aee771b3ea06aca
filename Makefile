.DEFAULT_GOAL := help

.PHONY: help
help: ## Print this help
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: ## Perform a job per file of this folder on an embedded server
	go run ./cmd/asyncnats demo

.PHONY: test
test: ## Run the tests
	go test ./...

.PHONY: race
race: ## Run the tests with the race detector
	go test -race ./...

.PHONY: bench
bench: ## Compare with the bare JetStream loop: medians of five runs, as a table and in bench.json
	go run ./integration/bench -json bench.json

.PHONY: quota-history
quota-history: ## Check 200 random histories of quotas, with deaths
	go test ./integration -run '^TestQuotaHistory' -timeout 60m -quota.seeds 200

.PHONY: crash-matrix
crash-matrix: ## Kill workers 1000 times at each step of a job
	go test ./integration -run '^TestCrashMatrix$$' -timeout 6h -crash.rounds 1000

.PHONY: races
races: ## Race for a job 10,000 times in each way
	go test ./integration -run '^(TestOneWinner|TestRemovalAndClaim)$$' -timeout 60m -race.runs 10000

.PHONY: fuzz
fuzz: ## Fuzz every decoder for half a minute
	grep -roE 'func Fuzz\w+' --include='*_test.go' . | sed -E 's,/[^/]+:func , ,' | sort | while read -r package target; do \
		go test "$$package" -run '^$$' -fuzz "^$$target$$" -fuzztime 30s </dev/null || exit 1; \
	done

.PHONY: lint
lint: ## Check formatting and lint as CI does
	test -z "$$(gofmt -l .)"
	go vet ./...
	golangci-lint run

.PHONY: update
update: ## Write golden files and generated parts of the docs anew
	go test ./job ./stream ./quotas -update

.PHONY: ci
ci: ## Run what CI runs
	bash .ci/run
