"""Compiles Triton's kernels for the GPUs named, without having any; prints registers, shared memory, spills as JSON."""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia.compiler import get_ptxas
from triton.compiler import ASTSource

from kansciml.layers._kernels._triton import dense, fused, rswaf, sparse
from kansciml.layers._kernels._triton.library import OPTIONS

SPLINES = {"S": 3, "UNIFORM": True, "OUTSIDE": "zero", "HALVINGS": 0}
ALONG = {"ALONG": False, "along": None}
WHOLE = {**SPLINES, **ALONG, "ACTIVATION": "silu"}
ROWS = {"BN": 8, "BO": 128}
# kernel, constants as the layer launches it for many rows and features, warps
DENSE = (
    (dense.pack, {"SCALE": True, "BASE": True, "BO": 1024}, 4),
    (dense.unpack, {"SPLIT": True, "BASE": True, "BO": 1024}, 4),
    (dense.exchange, {**WHOLE, "CONTRACT": True, "FILL": True, "BN": 8, "BI": 64}, 4),
    (dense.exchange, {**WHOLE, "UNIFORM": False, "HALVINGS": 4, "CONTRACT": True, "FILL": True, "BN": 8, "BI": 64}, 4),
)
SPARSE = (
    (sparse.forward, {**WHOLE, "ADD": False, "BN": 16, "BO": 128}, 4),
    (sparse.backward, {**WHOLE, **ROWS}, 4),
    (sparse.first_spline, {**SPLINES, "BN": 256}, 4),
    (sparse.weights, {**SPLINES, **ALONG, "BN": 16, "BO": 128}, 4),
)
FUSED = (
    (fused.forward, {**WHOLE, "ADD": False, "PRECISION": "tf32", "BN": 128, "BI": 16, "BO": 128}, 8),
    (fused.backward, {**WHOLE, "PRECISION": "tf32", "BN": 64, "BI": 64, "BO": 64}, 8),
)
RSWAF = ((rswaf.exchange, {"CONTRACT": True, "FILL": True, "TWICE": 6.0, "REST": 0.06, "BN": 8, "BI": 64}, 4),)
ONE = {"n_in": 1, "G": 1}  # sizes of 1 are constants to the compiler
SMALL = (
    (dense.pack, {**ONE, "SCALE": True, "BASE": True, "BO": 8}, 4),
    (dense.exchange, {**WHOLE, **ONE, "OUTSIDE": "linear", "CONTRACT": True, "FILL": True, "BN": 8, "BI": 1}, 4),
    (fused.forward, {**WHOLE, **ONE, "ADD": False, "PRECISION": "tf32", "BN": 16, "BI": 16, "BO": 16}, 8),
)
LAYER = {"bf16": (*DENSE, *FUSED, *SMALL), "fp32": (*SPARSE, *FUSED, *RSWAF), "fp16": DENSE}
TYPES = {70: ("fp16", "fp32"), 80: ("bf16", "fp32"), 90: ("bf16", "fp32")}
KEPT = {"cells": "*fp32", "points": "*fp64", "order": "*i64", "ends": "*i32", "found": "*i32"}
SIZES = {"n_rows", "n_in", "n_out", "size", "share", "G"}


def resources(kernel, constants, warps, capability, dtype):
    """What ptxas says of one kernel."""
    signature, attributes = {}, {}
    for place, name in enumerate(kernel.arg_names):
        kind = "i32" if name in SIZES else KEPT.get(name, "*" + dtype)
        signature[name] = "constexpr" if name in constants else kind
        if name not in constants and (
            kind.startswith("*") or name in ("n_in", "n_out")
        ):  # as launches find it: aligned, multiples of 16
            attributes[(place,)] = [["tt.divisibility", 16]]
    own = {name: value for name, value in constants.items() if name in kernel.arg_names}
    source = ASTSource(kernel, signature, own, attributes)
    made = triton.compile(source, target=GPUTarget("cuda", capability, 32), options={"num_warps": warps, **OPTIONS})
    ptx = made.asm["ptx"]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.ptx"
        path.write_text(ptx)
        target = re.search(r"\.target (\w+)", ptx).group(1)
        command = [get_ptxas(capability).path, "-v", "--gpu-name", target, path, "-o", path.with_suffix(".cubin")]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    spilled = [int(n) for n in re.findall(r"(\d+) bytes spill", said)]
    return {
        "kernel": f"{kernel.__module__.rsplit('.')[-1]}.{kernel.__name__}",
        "capability": capability,
        "dtype": dtype,
        "registers": int(re.search(r"Used (\d+) registers", said).group(1)),
        "spilled_bytes": sum(spilled),
        "shared_bytes": made.metadata.shared,
        "tensor_cores": "mma" in ptx,
    }


def main(capabilities):
    for capability in capabilities:
        for dtype in TYPES[capability]:
            for kernel, constants, warps in LAYER[dtype]:
                if capability >= 80 or kernel not in [one for one, _, _ in FUSED]:  # Volta never launches those
                    print(json.dumps(resources(kernel, constants, warps, capability, dtype)), flush=True)


if __name__ == "__main__":
    main([int(one) for one in sys.argv[1:]])
