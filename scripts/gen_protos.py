"""Generate the Python code and the typed stubs of `protos/`.

    python scripts/gen_protos.py [OUT]

OUT defaults to `protos/`, beside the sources; the test that finds stale code passes a directory of its own.
Generating twice gives the same bytes, so stale code is found by comparing files.
"""

from __future__ import annotations

import sys
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent / "protos"
WELL_KNOWN = Path(protoc.__file__).parent / "_proto"


def run(*arguments: str) -> None:
    status = protoc.main(["protoc", f"-I{ROOT}", f"-I{WELL_KNOWN}", *arguments])
    if status != 0:
        raise SystemExit(status)


def main(out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    protos = sorted(map(str, ROOT.rglob("*.proto")))
    # The gRPC plugins write an empty module for a file without a service.
    services = [proto for proto in protos if proto.endswith("_service.proto")]
    run(f"--python_out={out}", f"--mypy_out=quiet:{out}", *protos)
    run(f"--grpc_python_out={out}", f"--mypy_grpc_out=quiet:{out}", *services)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if sys.argv[1:] else ROOT)
