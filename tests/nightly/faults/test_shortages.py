"""No room: shared memory, disks of the client and of the server, memory of one process."""

from __future__ import annotations

import os
import re
import resource
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from heartvoice.client import Client
from heartvoice.contracts.constants import STEM_RATE_HZ
from heartvoice.errors import ModelUnavailableError
from heartvoice.runtime.repository import Repository
from heartvoice.server.server import EmbeddedServer
from tests.support import music
from tests.support.faults.jobs import CONSENT, Running, cover, left_behind, recovery_s, song, wait_until_busy
from tests.support.faults.recorder import Recorder
from tests.support.raw import HEARTVOICE, start_cli
from tests.support.waiting import wait_until

LIMIT = resource.RLIM_INFINITY


def limit(pid: int, what: int, n_bytes: int) -> None:
    resource.prlimit(pid, what, (n_bytes, LIMIT))


def lift(pid: int, what: int) -> None:
    if os.path.exists(f"/proc/{pid}"):  # noqa: PTH110
        resource.prlimit(pid, what, (LIMIT, LIMIT))


def mapped(pid: int, what: str) -> int:
    """A line of a process's status in bytes."""
    found = re.search(rf"^{what}:\s*(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found
    return int(found[1]) * 1024


@pytest.mark.timeout(180)
def test_out_of_memory_in_one_process_fails_its_jobs_and_no_others(
    server: EmbeddedServer, client: Client, alone: Callable[[str], np.ndarray], record: Recorder
) -> None:
    expected, pid = alone("cover"), server.stub_pids()["heartcodec"]
    bystander = Running(lambda: cover(client))
    limit(pid, resource.RLIMIT_DATA, mapped(pid, "VmData") + 2**20)  # private memory: shared memory is another fault
    fell = time.monotonic()
    job = Running(lambda: song(client, codec_window=372)).wait()
    lift(pid, resource.RLIMIT_DATA)
    assert isinstance(job.error, ModelUnavailableError)
    assert "heartcodec" in str(job.error)
    recovered = recovery_s(lambda: song(client, duration_s=2.0, min_duration_s=2.0), fell)
    assert np.array_equal(bystander.wait().samples, expected), "another job was hurt"
    left = left_behind(server)
    record(
        "out of memory in heartcodec (RLIMIT_DATA by prlimit, lifted after the error)", saw=job.error,
        after_s=job.ended_at - fell, others="cover: same samples as alone", recovery_s=recovered, left=left,
    )  # fmt: skip
    assert not left


@pytest.mark.timeout(120)
def test_a_full_temporary_disk_fails_a_render_in_words(
    server: EmbeddedServer, client: Client, alone: Callable[[str], np.ndarray], record: Recorder
) -> None:
    expected, pid = alone("song"), server.stub_pids()["render"]
    limit(pid, resource.RLIMIT_FSIZE, 100_000)  # stands in for a full disk, which would be everybody's
    try:
        fell = time.monotonic()
        bystander = Running(lambda: song(client))
        with pytest.raises(ModelUnavailableError, match="render: the server has run out of space for temporary") as saw:
            client.render(lyrics="la", duration_s=8.0, min_duration_s=8.0, timeout_s=30.0)
        after_s = time.monotonic() - fell
    finally:
        lift(pid, resource.RLIMIT_FSIZE)
    recovered = recovery_s(lambda: client.render(lyrics="la", duration_s=1.0, timeout_s=15.0), fell)
    assert np.array_equal(bystander.wait().samples, expected)
    left = left_behind(server)
    record(
        "no room for render's temporary file (RLIMIT_FSIZE by prlimit)", saw=saw.value, after_s=after_s,
        others="song: same samples as alone", recovery_s=recovered, left=left,
    )  # fmt: skip
    assert not left


@pytest.mark.timeout(120)
@pytest.mark.parametrize("with_stems", [False, True], ids=["song.wav", "stems"])
def test_a_full_disk_at_the_client_cancels_the_job_and_leaves_no_file(
    server: EmbeddedServer, client: Client, mounting: Callable[..., list[str]], record: Recorder, tmp_path: Path,
    with_stems: bool,
) -> None:  # fmt: skip
    lyrics, small = tmp_path / "lyrics.txt", tmp_path / "small"
    lyrics.write_text("la la la")
    small.mkdir()
    # The song beside the stems has room enough; they have not.
    output = (tmp_path if with_stems else small) / "song.wav"
    command = [*HEARTVOICE, "song", "--url", server.url, "--lyrics", f"@{lyrics}", "-o", str(output)]
    command += ["--duration", "120", "--min-duration", "120", "--codec-window", "93"]
    command += ["--stems", str(small / "stems")] if with_stems else []
    listing = f'"$@"; code=$?; ls -A {small} >&2; exit $code'
    inside = [*mounting(disk=(small, "2m")), "sh", "-c", listing, "sh"]
    fell = time.monotonic()
    done = subprocess.run([*inside, *command], capture_output=True, text=True)
    after_s = time.monotonic() - fell
    place = small / "stems" if with_stems else output
    assert done.returncode == 1, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert lines[-1] == f"error: {place}: No space left on device", "an error in one line, and no file in the folder"
    assert not output.exists()
    wait_until(lambda: server.live_jobs() == 0, 60.0, "the server goes on with the job")
    recovered = recovery_s(lambda: song(client, duration_s=1.0, min_duration_s=1.0), time.monotonic())
    record(
        f"the client's disk is full ({'stems' if with_stems else 'song.wav'}; tmpfs of 2 MB)", saw=lines[-1],
        after_s=after_s, recovery_s=recovered, left=left_behind(server),
    )  # fmt: skip


@pytest.mark.timeout(300)
def test_full_shared_memory_and_a_full_log_disk(
    repository: Repository, mounting: Callable[..., list[str]], record: Recorder, tmp_path: Path
) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    inside = mounting(shm=(Path("/dev/shm"), "256m"), log=(logs, "256k"))
    process, ready = start_cli(repository.root, "--log-file", str(logs / "server.log"), inside=inside)
    root = Path(f"/proc/{process.pid}/root")
    log, hog = root / str(logs / "fill").lstrip("/"), root / "dev/shm/hog"
    big = (music.song(60.0)[0], STEM_RATE_HZ)
    try:
        with Client(str(ready["grpc"]), retries=0) as client:
            expected = song(client)
            log.write_bytes(b"x" * (256 * 1024 - sum(f.stat().st_size for f in log.parent.glob("server.log")) - 8192))
            with pytest.raises(OSError, match="No space"):
                (log.parent / "more").write_bytes(bytes(2**20))
            assert np.array_equal(song(client), expected), "a full log disk stops nothing"
            record("the disk of the server's log is full (tmpfs)", saw="the song, right", others="song: same samples")
            free = os.statvfs(hog.parent).f_bavail * os.statvfs(hog.parent).f_frsize
            hog.write_bytes(bytes(free - 65536))
            fell = time.monotonic()
            with pytest.raises(ModelUnavailableError, match="shared memory") as saw:
                client.separate(big, sources=["vocals"], timeout_s=30.0)
            after_s = time.monotonic() - fell
            with pytest.raises(ModelUnavailableError, match="has run out of shared memory; try again later"):
                song(client)
            hog.unlink()
            recovered = recovery_s(lambda: client.separate(big, sources=["vocals"], timeout_s=60.0), fell)
            assert np.array_equal(song(client), expected)
            record(
                "/dev/shm is full (tmpfs of 256 MB)", saw=saw.value, after_s=after_s,
                others="songs: UNAVAILABLE in the same words; right again afterwards", recovery_s=recovered,
            )  # fmt: skip
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert process.returncode == 0


@pytest.mark.timeout(300)
@pytest.mark.parametrize("full", ["before", "meanwhile"])
def test_an_export_onto_a_full_disk_says_so_and_leaves_nothing(
    mounting: Callable[..., list[str]], record: Recorder, tmp_path: Path, full: str
) -> None:
    small = tmp_path / "small"
    small.mkdir()
    command = [*HEARTVOICE, "export", "--preset", "tiny", "--random-weights", "0", "--repository", str(small / "tiny")]
    if full == "before":
        inside = [*mounting(disk=(small, "3m")), "sh", "-c", f'"$@"; code=$?; ls -A {small} >&2; exit $code', "sh"]
    else:  # the look at the free space goes well, and a later write does not
        inside = ["prlimit", "--fsize=300000", "--"]
    done = subprocess.run([*inside, *command], capture_output=True, text=True)
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert done.returncode == 1, done.stderr
    assert re.fullmatch(
        r"error: \w+: needs \d+ MB in .*, \d+ MB are free" if full == "before" else r"error: .*File too large",
        lines[-1],
    ), lines
    assert not list(small.iterdir())
    how = "tmpfs of 3 MB" if full == "before" else "RLIMIT_FSIZE: it fills up meanwhile"
    record(f"the disk of the model repository is full ({how})", saw=lines[-1])


@pytest.mark.timeout(120)
def test_the_oom_killer_is_a_kill(server: EmbeddedServer, client: Client, record: Recorder) -> None:
    """What the kernel does is SIGKILL, whoever asked for the memory; the process is chosen by its size."""
    victim = "htdemucs"
    pid = server.stub_pids()[victim]
    score = Path(f"/proc/{pid}/oom_score")
    assert int(score.read_text()) >= 0
    job = Running(lambda: client.separate((music.song(60.0)[0], STEM_RATE_HZ), sources=["vocals"])["vocals"])
    assert wait_until_busy(pid, job.ended)
    os.kill(pid, signal.SIGKILL)
    fell = time.monotonic()
    job.wait()
    assert isinstance(job.error, ModelUnavailableError)
    assert victim in str(job.error)
    recovered = recovery_s(
        lambda: client.separate((music.song(2.0)[0], STEM_RATE_HZ), sources=["vocals"], timeout_s=30.0), fell
    )
    record(
        "SIGKILL of htdemucs, as by the OOM killer", saw=job.error, after_s=job.ended_at - fell, recovery_s=recovered
    )
    assert CONSENT not in str(job.error)
