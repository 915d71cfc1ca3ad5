"""A Kubernetes API server of one's own: etcd and kube-apiserver on the loopback of whatever namespace this runs in."""

import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import time
import urllib.request
from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import yaml

BINARIES = Path(os.environ.get("FELIX_KUBERNETES", Path.home() / ".cache/felix-py/kubernetes"))
"""Where `make kubernetes-binaries` puts kube-apiserver, etcd and kubectl."""

CRDS = Path(__file__).parents[2] / "deploy/kubernetes/crds"

READY = 60.0
"""Seconds that a server may take to start on a busy machine."""

CURVE = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")

SERVICE = "10.96.0.1"
"""Where pods find the server, if there is a kube-proxy."""

DIES_WITH_US = ("setpriv", "--pdeathsig", "KILL")
"""Put before a command: a test that is killed leaves no server behind."""

STARTER = ThreadPoolExecutor(1, "servers")
"""A server dies with the thread that started it (PR_SET_PDEATHSIG, prctl(2)): this one stays as long as the tests."""

ALONE = ("--authorization-mode=RBAC", "--disable-admission-plugins=ServiceAccount")
"""Options of a server without kubelets and controllers: nobody would make the default service accounts."""


def binary(name: str) -> str | None:
    found = BINARIES / name
    return str(found) if found.exists() else shutil.which(name)


def available() -> bool:
    return binary("kube-apiserver") is not None and binary("etcd") is not None


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class ApiServer:
    """The two processes, and requests to them as the administrator."""

    def __init__(
        self,
        folder: Path,
        *options: str,
        address: str = "127.0.0.1",
        within: Callable[..., Any] | None = None,
        who_may: Iterable[str] = ALONE,
    ) -> None:
        """Start both.

        Args:
            folder: for certificates, logs and etcd's data.
            options: more of kube-apiserver's.
            address: where it listens.
            within: runs what makes or asks them, as in a network namespace.
            who_may: options about authorization and admission.
        """
        self.folder = folder
        self._options = (*who_may, *options)
        self._address = address
        self._within = within or _here
        self.port, self._etcd_port, peer = (self._within(free_port) for _ in range(3))
        self.url = f"https://{address}:{self.port}"
        _certificates(folder, address)
        self.kubeconfig = self.write_kubeconfig("admin", {"client-certificate": "admin.crt", "client-key": "admin.key"})
        self._context = ssl.create_default_context(cafile=str(folder / "ca.crt"))
        self._context.load_cert_chain(folder / "admin.crt", folder / "admin.key")
        here = f"http://127.0.0.1:{self._etcd_port}"
        self._etcd = self._spawn(
            "etcd", f"--data-dir={folder}/etcd", f"--listen-client-urls={here}", f"--advertise-client-urls={here}",
            f"--listen-peer-urls=http://127.0.0.1:{peer}", f"--initial-advertise-peer-urls=http://127.0.0.1:{peer}",
            f"--initial-cluster=default=http://127.0.0.1:{peer}", "--unsafe-no-fsync",
        )  # fmt: skip
        self._server: subprocess.Popen[bytes] | None = None
        self.start()

    def write_kubeconfig(self, name: str, user: Mapping[str, str], server: str | None = None) -> Path:
        """Write who somebody is; values that name files of ours get their folder."""
        files = {
            key: str(self.folder / value) if value.endswith((".crt", ".key")) else value for key, value in user.items()
        }
        cluster = {"server": server or self.url, "certificate-authority": str(self.folder / "ca.crt")}
        path = self.folder / f"{name}.conf"
        document = {
            "apiVersion": "v1", "kind": "Config", "current-context": "lab",
            "clusters": [{"name": "lab", "cluster": cluster}],
            "users": [{"name": "lab", "user": files}],
            "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "lab"}}],
        }  # fmt: skip
        path.write_text(yaml.safe_dump(document))
        return path

    def _spawn(self, name: str, *words: str) -> "subprocess.Popen[bytes]":
        program = binary(name)
        assert program is not None
        with (self.folder / f"{name}.log").open("ab") as log:
            command = [*DIES_WITH_US, program, *words]
            started = STARTER.submit(self._within, subprocess.Popen, command, stdout=log, stderr=log, cwd=self.folder)
            return started.result()  # type: ignore[no-any-return]

    def start(self) -> None:
        """Start the API server, and wait until it is ready."""
        folder = self.folder
        self._server = self._spawn(
            "kube-apiserver", f"--etcd-servers=http://127.0.0.1:{self._etcd_port}", f"--bind-address={self._address}",
            f"--secure-port={self.port}", f"--advertise-address={self._address}", f"--client-ca-file={folder}/ca.crt",
            f"--tls-cert-file={folder}/apiserver.crt", f"--tls-private-key-file={folder}/apiserver.key",
            f"--service-account-key-file={folder}/sa.pub", f"--service-account-signing-key-file={folder}/sa.key",
            "--service-account-issuer=https://kubernetes.default.svc", "--service-cluster-ip-range=10.96.0.0/16",
            f"--cert-dir={folder}", f"--token-auth-file={self.tokens()}", *self._options,
        )  # fmt: skip
        until = time.monotonic() + READY
        while time.monotonic() < until:
            assert self._server.poll() is None, (folder / "kube-apiserver.log").read_text()[-2000:]
            try:
                if self.request("GET", "/readyz", raw=True) == b"ok":
                    return
            except (OSError, HTTPError):
                pass
            time.sleep(0.1)
        raise AssertionError("the API server is not ready: " + (folder / "kube-apiserver.log").read_text()[-2000:])

    def tokens(self) -> Path:
        path = self.folder / "tokens.csv"
        if not path.exists():
            path.write_text("weak-token,weak,weak-id\ngood-token,good,good-id,system:masters\n")
        return path

    def stop(self) -> None:
        """Stop the API server, at once and without a word to anybody."""
        assert self._server is not None
        self._server.kill()
        self._server.wait()

    def pause(self, *, until: bool) -> None:
        """Have it hang, or go on."""
        assert self._server is not None
        self._server.send_signal(signal.SIGSTOP if until else signal.SIGCONT)

    def close(self) -> None:
        for process in (self._server, self._etcd):
            if process is not None and process.poll() is None:
                process.kill()
                process.wait()

    def request(self, method: str, path: str, body: object = None, *, raw: bool = False, content: str = "json") -> Any:
        """Send one request as the administrator.

        Raises:
            HTTPError: for anything but success; its words are its message.
        """
        return self._within(self._request, method, path, body, raw=raw, content=content)

    def _request(self, method: str, path: str, body: object, *, raw: bool, content: str) -> Any:
        data = json.dumps(body).encode() if body is not None else None
        headers = {"Content-Type": f"application/{content}"}
        request = urllib.request.Request(self.url + path, data, headers, method=method)  # noqa: S310 - https
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=self._context)
        )
        try:
            with opener.open(request, timeout=30) as answer:
                text = answer.read()
        except HTTPError as error:
            words = error.read().decode(errors="replace")
            raise HTTPError(error.url, error.code, words, error.headers, None) from None
        return text if raw else json.loads(text)

    def wipe(self, *prefixes: str) -> None:
        """Delete keys out of etcd, behind the server's back."""

        def delete(prefix: str) -> None:
            end = prefix[:-1] + chr(ord(prefix[-1]) + 1)
            question = {"key": b64encode(prefix.encode()).decode(), "range_end": b64encode(end.encode()).decode()}
            url = f"http://127.0.0.1:{self._etcd_port}/v3/kv/deleterange"
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            with opener.open(url, json.dumps(question).encode(), timeout=30) as answer:
                assert int(json.loads(answer.read()).get("deleted", 0)) > 0, prefix

        for prefix in prefixes:
            self._within(delete, prefix)

    def apply(self, *documents: Mapping[str, Any], dry: bool = False) -> None:
        """Apply documents as `kubectl apply --server-side` does, with unknown fields refused."""
        for document in documents:
            query = "?fieldManager=test&force=true&fieldValidation=Strict" + ("&dryRun=All" if dry else "")
            self.request("PATCH", self.path_of(document) + query, document, content="apply-patch+yaml")

    def delete(self, *documents: Mapping[str, Any]) -> None:
        for document in documents:
            self.request("DELETE", self.path_of(document))

    def path_of(self, document: Mapping[str, Any]) -> str:
        version = document["apiVersion"]
        kind = document["kind"].lower()
        plural = kind[:-1] + "ies" if kind.endswith("y") else kind + "es" if kind.endswith("s") else kind + "s"
        namespace = document["metadata"].get("namespace")
        where = f"/namespaces/{namespace}" if namespace else ""
        prefix = f"/api/{version}" if "/" not in version else f"/apis/{version}"
        return f"{prefix}{where}/{plural}/{document['metadata']['name']}"

    def define(self) -> None:
        """Apply our CustomResourceDefinitions, and wait until the server serves all of them."""
        definitions = [yaml.safe_load(path.read_text()) for path in sorted(CRDS.glob("*.yaml"))]
        definitions = [each for each in definitions if each["kind"] == "CustomResourceDefinition"]
        self.apply(*definitions)
        self.await_served(each["spec"]["names"]["plural"] for each in definitions)

    def await_served(self, plurals: Iterable[str]) -> None:
        until = time.monotonic() + READY
        for plural in plurals:
            while True:
                try:
                    self.request("GET", f"/apis/projectcalico.org/v3/{plural}")
                    break
                except HTTPError:
                    assert time.monotonic() < until, f"{plural} is not served"
                    time.sleep(0.05)

    def clear(self) -> None:
        """Remove all resources, and nodes."""
        for plural in sorted(path.stem for path in CRDS.glob("*.yaml") if path.stem != "kustomization"):
            self.request("DELETE", f"/apis/projectcalico.org/v3/{plural}")
        self.request("DELETE", "/api/v1/nodes")


def _here(work: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    return work(*arguments, **named)


def _openssl(folder: Path, *words: str) -> None:
    subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)


def sign(folder: Path, name: str, subject: str, extension: str = "extendedKeyUsage=clientAuth") -> dict[str, str]:
    """Make a key and a certificate; return them as a user of a kubeconfig."""
    (folder / f"{name}.ext").write_text(extension)
    _openssl(folder, "req", *CURVE, "-subj", subject, "-keyout", f"{name}.key", "-out", f"{name}.csr")
    _openssl(
        folder, "x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial",
        "-days", "30", "-extfile", f"{name}.ext", "-out", f"{name}.crt",
    )  # fmt: skip
    return {"client-certificate": f"{name}.crt", "client-key": f"{name}.key"}


def _certificates(folder: Path, address: str) -> None:
    if (folder / "ca.crt").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    _openssl(
        folder, "req", "-x509", *CURVE, "-days", "30", "-subj", "/CN=lab-ca", "-keyout", "ca.key", "-out", "ca.crt"
    )
    sign(folder, "apiserver", "/CN=kube-apiserver", f"subjectAltName=IP:{address},IP:{SERVICE},DNS:localhost")
    sign(folder, "admin", "/O=system:masters/CN=admin")
    _openssl(folder, "genrsa", "-out", "sa.key", "2048")
    _openssl(folder, "rsa", "-in", "sa.key", "-pubout", "-out", "sa.pub")
