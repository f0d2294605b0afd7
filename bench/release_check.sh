#!/bin/sh
# What a user would install, tried: `make release-check`. Needs the packages of dist/ and 5 GB.
# The wheel goes into an environment of its own, and is used from a folder outside of this tree.
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
wheel=$(ls "$here"/dist/*.whl)

"${PYTHON:-python3}" -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check -c "$here/constraints.txt" "$wheel" pytest
"$place/venv/bin/pip" check
cd "$place"
PATH="$place/venv/bin:$PATH"

python - "$wheel" <<'EOF'
import sys
import augbench
from augbench.planning.grid import load_grid
home, wheel = augbench.__file__, sys.argv[1]
assert "site-packages" in home, f"{home} is not the installed package"
assert f"augbench-{augbench.__version__}-" in wheel, f"{wheel} is not of version {augbench.__version__}"
EOF

# A small folder of drawn images, as a user has it: normal parts, and parts with a scratch.
python - <<'EOF'
from pathlib import Path
import numpy as np
from PIL import Image
rng = np.random.default_rng(0)
for name, count in (("good", 80), ("scratch", 40)):
    Path("parts", name).mkdir(parents=True)
    for number in range(count):
        image = rng.normal(128, 12, (64, 64, 3))
        if name == "scratch":
            row, column = rng.integers(8, 40, 2)
            image[row : row + 2, column : column + 20] += 90
        Image.fromarray(image.clip(0, 255).astype("uint8")).save(f"parts/{name}/{number:03}.png")
EOF
augbench try parts --budget 90s
test -s runs/try-parts/index.html

# The example of a plug-in: its own tests, and a run.
augbench new augmenter stripes --dir my
python -m pytest -q my/test_stripes.py
cat > grid.yaml <<'EOF'
datasets: [surfaces]
augmenters: [none, stripes]
shots: [5]
n_aug: [20]
protocols: [{name: tiny_probe, kind: probe, width: 88, height: 32, backbone: micro_resnet, holdout: 0.1}]
EOF
augbench --plugin my/stripes.py run grid.yaml --executor inline
echo "release check passed: $(basename "$wheel"), $(du -h "$wheel" | cut -f1)"
