# demo: everything from a fresh machine to a program that runs in an image that Slipway built
# test: everything from a fresh machine to all checks and tests passed
# Both need a Debian or Ubuntu machine, root, and the network for apt and npm.

IMAGES := .slipway/images
CLIENTS := .slipway/clients

.PHONY: demo test packages images clients clean

demo: packages node_modules images
	@scripts/demo

test: packages node_modules images clients
	npm run check
	npm test
	npm run build
	npm run test:e2e

packages:
	@scripts/install-packages

node_modules: package.json package-lock.json
	npm ci --no-audit --no-fund
	@touch node_modules

# Made once from Debian's own packages; no image registry is needed.
images:
	@scripts/base-images $(IMAGES)

# Debian's docker, docker-buildx and docker-compose, unpacked for the tests.
clients:
	@scripts/docker-clients $(CLIENTS)

clean:
	rm -rf dist node_modules .slipway
