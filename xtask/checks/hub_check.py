"""Hugging Face's own client fetches from the server that the tests of `narthex pull` use: so that what they test is the Hub's API.

usage: python xtask/checks/hub_check.py target/debug/examples/fake_hub
(build it with `cargo build -p narthex-hub --example fake_hub`; needs the package huggingface_hub)
"""

import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path


def main(program: str) -> None:
    server = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    commit, git_sha1, sha256 = server.stdout.readline().split()
    url = server.stdout.readline().strip()
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"HF_ENDPOINT": url, "HF_HOME": folder, "HF_TOKEN": "hf_secret", "HF_HUB_DISABLE_XET": "1", "NO_PROXY": "127.0.0.1"}
        import huggingface_hub

        info = huggingface_hub.HfApi().model_info("org/name", revision="main", files_metadata=True)
        assert info.sha == commit, info
        sums = {file.rfilename: file.lfs.sha256 if file.lfs else file.blob_id for file in info.siblings}
        assert sums["model.safetensors"] == sha256 and sums["README.md"] == git_sha1, sums
        # Not `snapshot_download`: it lists by another part of the API, which narthex does not use.
        for name in sums:
            huggingface_hub.hf_hub_download("org/name", name, revision=commit)
        snapshot = Path(folder) / "hub/models--org--name/snapshots" / commit
        assert snapshot.is_dir(), snapshot
        weights = (snapshot / "model.safetensors").resolve()
        assert weights.name == sha256 == hashlib.sha256(weights.read_bytes()).hexdigest(), weights
        assert (snapshot / "README.md").resolve().name == git_sha1
        assert (snapshot / "1_Pooling/config.json").read_text() == "{}"
        for name, error in [("org/other", "RepositoryNotFoundError"), ("org/name@v9", "RevisionNotFoundError")]:
            repository, _, revision = name.partition("@")
            try:
                huggingface_hub.HfApi().model_info(repository, revision=revision or None)
                raise AssertionError(f"{name} was found")
            except huggingface_hub.errors.HfHubHTTPError as found:
                assert type(found).__name__ == error, found
        print(f"huggingface_hub {huggingface_hub.__version__}: 3 files fetched, cache laid out as narthex reads it, 2 refusals understood")
    server.stdin.close()
    server.wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
