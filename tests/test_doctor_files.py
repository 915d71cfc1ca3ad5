"""What `felixctl doctor` reads in files, out of folders made for it."""

import json
import os
from pathlib import Path

import pytest

from felix_py.ctl import doctor_files


def test_runtimes_take_the_first_configuration_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_files, "RUNTIMES", tmp_path)
    (tmp_path / "10-felix.conflist").write_text(json.dumps({"plugins": [{"type": "felix-cni"}, {"type": "portmap"}]}))
    (tmp_path / "05-bridge.conf").write_text(json.dumps({"type": "bridge"}))
    (tmp_path / "00-broken.conf").write_text("{")
    (tmp_path / "00-odd.json").write_text(json.dumps([1, {"type": 7}]))
    (tmp_path / "00-felix.kubeconfig").write_text("not a configuration")
    assert list(doctor_files.cni()) == [
        ("00-broken.conf", ()),
        ("00-odd.json", ()),
        ("05-bridge.conf", ("bridge",)),
        ("10-felix.conflist", ("felix-cni", "portmap")),
    ]


def test_a_host_without_a_runtime_has_no_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_files, "RUNTIMES", tmp_path / "none")
    assert list(doctor_files.cni()) == []


def test_settings_are_read_in_their_order_without_comments(tmp_path: Path) -> None:
    (tmp_path / "networkd.conf").write_text("# no\n; no\n[Network]\n")
    (tmp_path / "networkd.conf.d").mkdir()
    (tmp_path / "networkd.conf.d" / "20.conf").write_text("ManageForeignRoutes=yes\n")
    (tmp_path / "networkd.conf.d" / "10.conf").write_text("  ManageForeignRoutes=no\n")
    patterns = (f"{tmp_path}/networkd.conf", f"{tmp_path}/networkd.conf.d/*.conf", f"{tmp_path}/nowhere/*")
    assert list(doctor_files.settings(patterns)) == ["[Network]", "ManageForeignRoutes=no", "ManageForeignRoutes=yes"]


def test_files_of_a_process_are_counted_until_it_is_gone() -> None:
    used, most = doctor_files.descriptors(os.getpid()) or (0, 0)
    assert 2 < used <= most
    assert doctor_files.descriptors(1 << 22) is None


def test_room_is_asked_of_each_folder_that_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there, gone = str(tmp_path), str(tmp_path / "none")
    monkeypatch.setattr(doctor_files, "FOLDERS", {there: "nothing is kept", gone: "nothing else is"})
    found = dict(doctor_files.free())
    assert found.keys() == {there}
    assert found[there] > 0


def test_this_kernel_offers_drivers_that_the_agent_knows() -> None:
    assert set(doctor_files.drivers()) <= {"kernel", "ebpf", "tun"}
