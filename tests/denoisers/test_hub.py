"""Hub names against a small hub of our own on this machine: what is asked for, what is recorded, and what works without it."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
from tests.tiny import tiny_stable

from rediffuse.denoisers import hub
from rediffuse.denoisers.base import DenoiserSpec
from rediffuse.denoisers.load import load
from rediffuse.denoisers.stable_folder import needed_files
from rediffuse.errors import ModelError

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPOSITORY = "somebody/tiny-diffusion"
ASK = """
import json, sys
from rediffuse.denoisers.hub import fetch
from rediffuse.denoisers.stable_folder import needed_files
from rediffuse.errors import ModelError
out = []
for name in sys.argv[1:]:
    try:
        out.append([str(part) for part in fetch(name, None, needed_files)])
    except ModelError as error:
        out.append(str(error))
print(json.dumps(out))
"""


@dataclass
class Hub:
    """Serves one folder as a repository with one commit; remembers what was fetched."""

    folder: Path
    fetched: list[str] = field(default_factory=list)
    address: str = ""

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        path = path.split("?")[0].removeprefix("/")
        files = sorted(file.relative_to(self.folder).as_posix() for file in self.folder.rglob("*") if file.is_file())
        if path in (f"api/models/{REPOSITORY}", f"api/models/{REPOSITORY}/revision/main", f"api/models/{REPOSITORY}/revision/{COMMIT}"):
            info = {"id": REPOSITORY, "sha": COMMIT, "private": False, "siblings": [{"rfilename": name} for name in files]}
            return 200, {}, json.dumps(info).encode()
        if path == f"api/models/{REPOSITORY}/tree/{COMMIT}":
            sizes = {name: (self.folder / name).stat().st_size for name in files}
            tree = [{"type": "file", "path": name, "size": size, "oid": COMMIT} for name, size in sizes.items()]
            return 200, {}, json.dumps(tree).encode()
        name = path.removeprefix(f"{REPOSITORY}/resolve/{COMMIT}/")
        if name in files:
            self.fetched.append(name)
            content = (self.folder / name).read_bytes()
            return 200, {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "none"}, content
        code = "RevisionNotFound" if path.startswith(f"api/models/{REPOSITORY}/") else "RepoNotFound"
        return 404, {"X-Error-Code": code}, b"{}"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    home = Hub(tiny_stable(tmp_path_factory.mktemp("hub") / "repository"))
    (home.folder / "weights.ckpt").write_bytes(b"pickle")
    (home.folder / "pipeline.py").write_text("raise SystemExit('run')")
    (home.folder / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"pickle")
    (home.folder / "unet" / "diffusion_pytorch_model.fp16.safetensors").write_bytes(b"never read")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, headers, content = home.answer(self.path)
            self.send_response(status)
            for key, value in {**headers, "Content-Length": str(len(content)), "Content-Type": "application/json"}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        do_HEAD = do_GET  # noqa: N815 (the server's own names)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    home.address = f"http://127.0.0.1:{server.server_port}"
    yield home
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def answers(served: Hub, root: Path) -> list[object]:
    """What a process with a connection gets; it fills the cache that this process reads without one."""
    names = [REPOSITORY, f"{REPOSITORY}@v9", "nobody/nothing"]
    environment = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
    environment |= {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": served.address, "HF_HUB_DISABLE_XET": "1", "PYTHONPATH": str(root / "src")}
    ran = subprocess.run([sys.executable, "-c", ASK, *names], env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 0, ran.stderr
    found: list[object] = json.loads(ran.stdout.splitlines()[-1])
    return found


def test_a_name_becomes_a_commit_and_only_needed_files_come(served: Hub, answers: list[object]) -> None:
    folder, commit = answers[0]  # type: ignore[misc]
    assert commit == COMMIT
    inside = {file.relative_to(folder).as_posix() for file in Path(folder).rglob("*") if file.is_file()}
    assert inside == set(served.fetched)
    got = set(served.fetched)
    assert {"model_index.json", "unet/diffusion_pytorch_model.safetensors", "tokenizer/tokenizer.json"} <= got
    assert not [name for name in got if name.endswith((".ckpt", ".py", ".bin")) or ".fp16." in name]


def test_names_that_are_not_there_say_so(answers: list[object]) -> None:
    assert "no revision 'v9'" in str(answers[1])
    assert "no hub model 'nobody/nothing'" in str(answers[2])


def test_a_full_disk_is_no_lost_connection(served: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def full(*_: object, **__: object) -> str:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    class Api:
        def model_info(self, *_: object, **__: object) -> object:
            return SimpleNamespace(siblings=[SimpleNamespace(rfilename=name) for name in needed_files_of(served)])

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", full)
    monkeypatch.setattr(hub, "_cached", lambda *_: None)
    with pytest.raises(ModelError, match="cannot be stored in the local cache: no space is left") as said:
        hub.fetch(REPOSITORY, "main", needed_files)
    assert "reached" not in str(said.value)
    monkeypatch.setattr(hub, "_cached", lambda *_: (served.folder, COMMIT))
    with pytest.warns(UserWarning, match=r"nothing can be downloaded \(no space is left\), so .* from the local cache"):
        assert hub.fetch(REPOSITORY, "main", needed_files) == (served.folder, COMMIT)


def needed_files_of(served: Hub) -> list[str]:
    return [file.relative_to(served.folder).as_posix() for file in served.folder.rglob("*") if file.is_file()]


@pytest.mark.usefixtures("answers")
def test_the_cache_serves_without_a_connection(served: Hub) -> None:
    with pytest.warns(
        UserWarning,
        match=f"cannot be reached .*{REPOSITORY} is taken from the local cache: commit {COMMIT}, the last that is known of main",
    ):
        by_branch = load(REPOSITORY, device="cpu", dtype="float32").spec
    assert by_branch is not None
    assert by_branch.revision == COMMIT
    local = load(tiny_stable(served.folder.parent / "same"), device="cpu", dtype="float32").spec
    assert local is not None
    assert by_branch.weights_hash == local.weights_hash
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a commit is what it is, with a hub or without
        by_commit = load(f"{REPOSITORY}@{COMMIT}", device="cpu", dtype="float32").spec
    assert by_commit is not None
    assert by_commit.weights_hash == by_branch.weights_hash
    again = load(by_branch, device="cpu").spec
    assert again == by_branch
    with pytest.raises(ModelError, match="other weights"):
        load(DenoiserSpec(name=REPOSITORY, path="", revision=COMMIT, weights_hash="f" * 64), device="cpu")


@pytest.mark.usefixtures("answers")
def test_a_torn_copy_is_no_copy() -> None:
    folder, _ = hub.fetch(REPOSITORY, COMMIT, needed_files)
    weights = folder / "vae" / "diffusion_pytorch_model.safetensors"
    kept = weights.resolve().read_bytes()
    weights.unlink()
    try:
        with pytest.raises(ModelError, match="cannot be reached"):
            load(REPOSITORY, device="cpu")
    finally:
        weights.write_bytes(kept)


def test_without_connection_and_copy_the_error_says_both() -> None:
    with pytest.raises(
        ModelError, match=r"no folder or file 'nobody/nowhere', and .* at main is not in the local cache and the hub cannot be reached"
    ):
        load("nobody/nowhere")


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("owner/name", ("owner/name", None)),
        ("owner/na.me-1@refs/pr/3", ("owner/na.me-1", "refs/pr/3")),
        ("name", None),
        ("a/b/c", None),
        ("../name", None),
        ("./name", None),
        ("owner/", None),
        ("own er/name", None),
    ],
)
def test_the_form_of_hub_names(name: str, parts: tuple[str, str | None] | None) -> None:
    assert hub.parse(name) == parts


def test_fetch_refuses_other_forms() -> None:
    with pytest.raises(ModelError, match="OWNER/NAME"):
        hub.fetch("a/b/c", None, needed_files)


@pytest.mark.parametrize("name", ["runs/net--2", "runs/net.git", "runs/net.", "runs/" + "n" * 97])
def test_names_that_the_hub_refuses_are_no_folders(name: str) -> None:
    with pytest.raises(ModelError, match="there is no folder or file"):
        hub.fetch(name, None, needed_files)


def test_a_folder_with_foreign_letters_is_no_hub_name() -> None:
    assert hub.parse("modelle/l\u00f6we") is None
