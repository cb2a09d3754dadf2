#!/bin/sh
# Install the wheels of the build context into /opt/venv: hashes checked, no index, byte code compiled (a container's
# file system is read-only, so it could never be compiled later). uv's cache lies beside the target, so that files are
# linked instead of copied, and is gone before the layer ends.
set -eu
[ -s /build/lock.txt ] || exit 0
export UV_CACHE_DIR=/opt/.uv
/build/uv pip install --python /opt/venv/bin/python --no-index --offline --no-config --find-links /build/wheels \
    --require-hashes --no-deps --compile-bytecode --link-mode hardlink -r /build/lock.txt
rm -rf /opt/.uv
