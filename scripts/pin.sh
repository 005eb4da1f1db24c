#!/usr/bin/env bash
# Writes requirements/*.txt: the versions that were tested, with hashes, for every Python and system
# that tinylens supports. Versions already pinned stay; `scripts/pin.sh --upgrade` moves them all.
# Needs uv (`pip install uv`).
set -euo pipefail
cd "$(dirname "$0")/.."

# PyTorch's builds without CUDA are not on PyPI; pip takes one where its settings let it find it.
torch=2.13.0
torch_cpu_linux_cp311=6746dbcbeb526eb61330b76b41ff1b4eb848951103a892eeb080dfa2b264667b

compile() {
    uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate \
        --custom-compile-command scripts/pin.sh "$@"
}

mkdir -p requirements
cd requirements
compile ../pyproject.toml --extra train --extra track --extra audit --extra serve \
    --extra litert --extra openvino --extra tune --group ../pyproject.toml:test \
    --group ../pyproject.toml:lint -o dev.txt "$@"
compile --group ../pyproject.toml:build -c dev.txt -o build.txt "$@"
compile ../pyproject.toml -c dev.txt -o runtime.txt "$@"
compile ../pyproject.toml --extra train -c dev.txt -o train.txt "$@"
compile ../pyproject.toml --extra serve -c dev.txt -o serve.txt "$@"
compile ../pyproject.toml --extra jax -c dev.txt -o jax.txt "$@"

both=$(mktemp)
trap 'rm -f "$both"' EXIT
cat torch.txt torch-cuda.txt > "$both" 2> /dev/null || true
compile ../pyproject.toml --extra torch -c dev.txt -c jax.txt -c <(echo "torch==$torch") \
    -o "$both" "$@"
awk '
    /^[a-z]/ { cuda = /^(cuda-|nvidia-|triton)/ }
    /^#/ { print > "torch-cuda.txt" }
    { print > (cuda ? "torch-cuda.txt" : "torch.txt") }
' "$both"
cat > torch-cpu.txt <<END
# Written by scripts/pin.sh
torch==$torch+cpu ; python_version == '3.11' and sys_platform == 'linux' and platform_machine == 'x86_64' \\
    --hash=sha256:$torch_cpu_linux_cp311
END
