"""Cores: quotas of containers, and what other processes take."""

from llmlab.machine import cores


def test_the_tightest_quota_counts(tmp_path):
    own = tmp_path / "cgroup"
    own.write_text("0::/box/inner\n")
    inner = tmp_path / "fs/box/inner"
    inner.mkdir(parents=True)
    assert cores.quota(tmp_path / "fs", own) is None
    (inner / "cpu.max").write_text("max 100000\n")
    assert cores.quota(tmp_path / "fs", own) is None
    (inner.parent / "cpu.max").write_text("150000 100000\n")
    assert cores.quota(tmp_path / "fs", own) == 1.5
    assert cores.quota(tmp_path / "fs", tmp_path / "none") is None


def test_the_quota_of_version_1(tmp_path):
    own = tmp_path / "cgroup"
    own.write_text("4:memory:/box\n3:cpu,cpuacct:/box\n")
    box = tmp_path / "fs/cpu,cpuacct/box"
    box.mkdir(parents=True)
    (box / "cpu.cfs_period_us").write_text("100000\n")
    (box / "cpu.cfs_quota_us").write_text("-1\n")
    assert cores.quota(tmp_path / "fs", own) is None
    (box / "cpu.cfs_quota_us").write_text("200000\n")
    assert cores.quota(tmp_path / "fs", own) == 2.0


def test_a_quota_limits_the_threads(monkeypatch):
    monkeypatch.setattr(cores, "allowed", lambda: 8)
    monkeypatch.setattr("psutil.cpu_count", lambda logical: 8)
    for limit, expected in ((None, 8), (1.5, 1), (0.5, 1), (4.0, 4), (64.0, 8)):
        monkeypatch.setattr(cores, "quota", lambda limit=limit: limit)
        assert cores.usable() == expected
