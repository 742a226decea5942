"""ONNX Runtime for browsers: its files come from the npm package `onnxruntime-web`, checked, at build time."""

from __future__ import annotations

import base64
import hashlib
import shutil
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

from pddm_utils.core.errors import InputError

PACKAGE, VERSION = "onnxruntime-web", "1.30.0"
_SHA512 = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
_SECONDS = 300
# One file each of script and WebAssembly: plain, and with WebGPU for browsers whose WebAssembly can wait for it.
_FILES = {
    "wasm": ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"),
    "webgpu": ("ort.jspi.bundle.min.mjs", "ort-wasm-simd-threaded.jspi.wasm"),
}
# The package names its licence and carries no copy of it.
LICENCE = f"""{PACKAGE} {VERSION}, the files runtime-wasm.js and runtime-webgpu.js in this folder, repacked as text.
The notices of the libraries inside: ThirdPartyNotices.txt of https://github.com/microsoft/onnxruntime, tag v{VERSION}.

MIT License

Copyright (c) Microsoft Corporation

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
documentation files (the "Software"), to deal in the Software without restriction, including without limitation the
rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit
persons to whom the Software is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the
Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR
OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""


@dataclass(frozen=True)
class WebRuntime:
    """One build of the runtime.

    Attributes:
        script: its JavaScript module.
        wasm: its WebAssembly.
    """

    script: str
    wasm: bytes


def fetch_runtime() -> dict[str, WebRuntime]:
    """The runtime's builds, `wasm` and `webgpu`, out of npm's cache or its registry.

    Raises:
        InputError: no npm, no network and nothing in its cache, or a package with another checksum.
    """
    npm = shutil.which("npm")
    if npm is None:
        raise InputError(f"{PACKAGE} {VERSION} comes from npm, which is not installed; install Node.js")
    with tempfile.TemporaryDirectory() as folder:
        command = [npm, "pack", f"{PACKAGE}@{VERSION}", "--prefer-offline", "--silent", "--fetch-retries=0"]
        try:
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=_SECONDS)
        except subprocess.TimeoutExpired:
            raise InputError(f"npm did not deliver {PACKAGE} {VERSION} within {_SECONDS} s; try again later") from None
        archive = Path(folder) / f"{PACKAGE}-{VERSION}.tgz"
        if done.returncode != 0 or not archive.is_file():
            raise InputError(
                f"npm did not deliver {PACKAGE} {VERSION} (exit code {done.returncode}); check the network, or run "
                f"`npm pack {PACKAGE}@{VERSION}` to see why"
            )
        return _checked_files(archive)


def _checked_files(archive: Path) -> dict[str, WebRuntime]:
    digest = hashlib.sha512(archive.read_bytes()).digest()
    if base64.b64encode(digest).decode() != _SHA512:
        raise InputError(f"{archive.name}: its checksum is not that of {PACKAGE} {VERSION}; clean npm's cache")
    with tarfile.open(archive) as opened:

        def content(name: str) -> bytes:
            file = opened.extractfile(f"package/dist/{name}")
            return file.read() if file is not None else b""

        found = {name: [content(file) for file in files] for name, files in _FILES.items()}
    # The last line of a script names its source map, which does not travel.
    return {
        name: WebRuntime(script.decode().rsplit("//# sourceMappingURL", 1)[0], wasm)
        for name, (script, wasm) in found.items()
    }
