"""What becomes of a saved history when something happens to it, or while it is saved."""

import dataclasses
import io
import json
import os
import random
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from sgd_analysis import History
from sgd_analysis.history.vectors import Vectors
from tests.history.test_history import assert_equal


@pytest.fixture
def history():
    gradients = np.arange(16, dtype=np.float32).reshape(8, 2)
    whole = History(
        loss=np.arange(8.0, 0, -1),
        n_samples=np.array([4, 4, 2, 4, 4, 2, 4, 4]),
        epoch=np.array([0, 0, 0, 1, 1, 1, 2, 2]),
        step_size=np.full((8, 1), 0.5),
        n_epochs=2,
        gradients=Vectors(gradients, np.linalg.norm(gradients, axis=1)),
        kept_weights=np.asfortranarray(np.arange(16.0).reshape(8, 2)),
        evaluated={"test": [0.5, 0.25], "../ß:": [np.nan, np.inf]},
        metadata={"reduction": "mean", "optimizer": "SGD"},
    )
    return dataclasses.replace(whole, ranks=(whole[:1],))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run.npz"


EMPTY = History(np.zeros(0), np.zeros(0), np.zeros(0, int), np.zeros((0, 1)), 0)

# Saves to the path it is given, and stops before the file is whole until a line comes in.
STOPPING = """
import os, sys
import numpy as np
from sgd_analysis import History

def stop(number):
    print("saving", flush=True)
    sys.stdin.readline()

os.fsync = stop
History(np.full(9, 7.0), np.ones(9), np.zeros(9, int), np.ones((9, 1)), 1).save(sys.argv[1])
"""


def stopped_while_saving(path):
    command = [sys.executable, "-c", STOPPING, os.fspath(path)]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, cwd=Path(__file__).parents[2])
    assert process.stdout.readline() == b"saving\n"
    return process


class TestUnfinished:
    @pytest.mark.parametrize(
        ("name", "use"), [("run.npz", History.load), ("é" * 127, lambda path: EMPTY.save(path))]
    )
    def test_what_a_killed_process_left_is_cleared_by_the_next_save_or_load(
        self, history, tmp_path, name, use
    ):
        path = tmp_path / name
        history.save(path)
        process = stopped_while_saving(path)
        process.kill()
        process.communicate()
        assert len(list(tmp_path.iterdir())) == 2
        use(path)
        assert list(tmp_path.iterdir()) == [path]

    def test_the_file_of_a_process_that_is_still_saving_is_not(self, history, path):
        process = stopped_while_saving(path)
        history.save(path)
        assert_equal(History.load(path), history)
        assert len(list(path.parent.iterdir())) == 2
        process.communicate(b"\n")
        assert process.returncode == 0
        assert_array_equal(History.load(path).loss, np.full(9, 7.0))
        assert list(path.parent.iterdir()) == [path]

    def test_files_of_other_names_stay(self, history, path):
        names = [".run.npz.0123456.tmp", ".run.npz.0123456g.tmp", ".run.01234567.tmp", "run.tmp"]
        for name in names:
            path.with_name(name).touch()
        history.save(path)
        History.load(path)
        assert sorted(p.name for p in path.parent.iterdir()) == sorted([*names, "run.npz"])

    def test_a_file_cleared_before_its_writer_could_lock_it_is_begun_again(
        self, history, path, monkeypatch
    ):
        locks = pytest.importorskip("fcntl", reason="the system has no file locks")
        lock, cleared = locks.flock, []

        def late(file, operation):
            if operation == locks.LOCK_EX and not cleared:
                (left,) = path.parent.iterdir()
                left.unlink()
                cleared.append(left)
            lock(file, operation)

        monkeypatch.setattr(locks, "flock", late)
        history.save(path)
        assert cleared
        assert_equal(History.load(path), history)

    def test_where_files_cannot_be_locked_they_are_saved_and_none_is_cleared(
        self, history, path, monkeypatch
    ):
        locks = pytest.importorskip("fcntl", reason="the system has no file locks")

        def refuse(file, operation):
            raise OSError("no locks available")

        monkeypatch.setattr(locks, "flock", refuse)
        left = path.with_name(".run.npz.01234567.tmp")
        left.touch()
        history.save(path)
        assert_equal(History.load(path), history)
        assert left.exists()


class TestWhatIsReplaced:
    @pytest.mark.parametrize("mode", [0o600, 0o640, 0o666])
    def test_a_file_keeps_its_mode(self, history, path, mode):
        history[0].save(path)
        path.chmod(mode)
        history.save(path)
        assert stat.S_IMODE(path.stat().st_mode) == mode
        assert_equal(History.load(path), history)

    def test_no_one_else_may_read_the_unfinished_file_of_a_private_one(self, path):
        path.touch(mode=0o600)
        process = stopped_while_saving(path)
        modes = [stat.S_IMODE(entry.stat().st_mode) for entry in path.parent.iterdir()]
        process.communicate(b"\n")
        assert modes == [0o600, 0o600]

    def test_a_file_that_is_read_only_is_refused_and_stays(self, history, path):
        history.save(path)
        path.chmod(0o400)
        with pytest.raises(PermissionError, match=r"run\.npz is read-only and stays as it is"):
            history[0].save(path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o400
        assert_equal(History.load(path), history)

    def test_a_named_pipe_is_refused_and_stays(self, history, path):
        os.mkfifo(path)
        with pytest.raises(OSError, match=r"run\.npz is no regular file but a device"):
            history.save(path)
        with pytest.raises(ValueError, match=r"run\.npz is no regular file"):
            History.load(path)
        assert path.is_fifo()

    def test_a_device_is_refused_behind_a_link_too(self, history, path):
        path.symlink_to(os.devnull)
        for device in (os.devnull, path):
            with pytest.raises(OSError, match="no regular file but a device"):
                history.save(device)
        assert Path(os.devnull).is_char_device()

    def test_a_folder_is_refused(self, history, tmp_path):
        with pytest.raises(IsADirectoryError, match="is a folder: give the path of a file in it"):
            history.save(tmp_path)

    @pytest.mark.parametrize("n_bytes", [241, 242, 244, 255])
    def test_a_long_name_is_saved(self, history, tmp_path, n_bytes):
        path = tmp_path / ("r" * n_bytes)
        history.save(path)
        assert_equal(History.load(path), history)


def npy(descr="'<f8'", order="False", shape="(8,)", data=bytes(64), version=b"\x01\x00"):
    header = f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY" + version + len(header).to_bytes(2, "little") + header + data


def stored(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


FORGED_ARRAYS = {
    "more numbers than there are": npy(shape="(1099511627776,)"),
    "more numbers than 64 bits count": npy(shape="(18446744073709551616,)"),
    "a product of zero in 64 bits": npy(shape="(4294967296, 4294967296)", data=b""),
    "a negative length": npy(shape="(-8,)"),
    "no tuple": npy(shape="(8)"),
    "deep brackets": npy(shape="(" * 150 + "8" + ",)" * 150),
    "deep minuses": npy(shape="-" * 5000 + "8"),
    "a string's odd escape": npy(descr=r"'\d'"),
    "an unknown type": npy(descr="'<f3'"),
    "strings": npy(descr="'<U2'"),
    "dates": npy(descr="'<M8[s]'"),
    "a record": npy(descr="[('a', '<f8')]"),
    "another order": npy(order="None"),
    "a later format": npy(version=b"\x03\x00"),
    "complex numbers": stored(np.ones(8, complex)),
    "no number": stored(np.full(8, np.nan)),
    "too large a number": stored(np.full(8, 1e300)),
    "an array of no dimension": stored(np.float64(3)),
    "more data than its shape says": npy(data=bytes(65)),
}


class TestDamage:
    def forge(self, path, change, compression=zipfile.ZIP_STORED):
        """Write the members again, one of them changed, with checksums that are right."""
        with zipfile.ZipFile(path) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        change(members)
        with zipfile.ZipFile(path, "w", compression) as archive:
            for name, data in members.items():
                archive.writestr(name, data)

    def redescribe(self, path, change):
        def replace(members):
            data = members["description.npy"]
            text = change(json.loads(data[data.index(b"\n") + 1 :]))
            members["description.npy"] = stored(np.frombuffer(text.encode(), np.uint8))

        self.forge(path, replace)

    def test_damaged_files_are_refused_or_hold_the_history_that_was_saved(self, history, path):
        history.save(path)
        whole, draw = path.read_bytes(), random.Random(0)
        end = whole.index(b"PK\x01\x02")  # the directory, which no checksum covers
        damaged = [whole[:n] for n in draw.sample(range(len(whole)), 100)]
        for at in [*draw.sample(range(end), 200), *range(end, len(whole), 2)]:
            flipped = bytearray(whole)
            flipped[at] ^= 1 << draw.randrange(8)
            damaged.append(flipped)
        for _ in range(400):
            at, n, value = (
                draw.randrange(end, len(whole)),
                draw.choice([1, 2, 4, 8]),
                b"\0\x7f\x80\xff",
            )
            damaged.append(whole[:at] + bytes([draw.choice(value)]) * n + whole[at + n :])
        refused = 0
        for data in damaged:
            path.write_bytes(data)
            try:
                loaded = History.load(path)
            except ValueError as error:
                assert "Errno" not in str(error)
                refused += 1
            else:
                assert_equal(loaded, history)
        assert refused > len(damaged) / 2

    @pytest.mark.parametrize("what", FORGED_ARRAYS)
    @pytest.mark.parametrize("name", ["epoch", "kept_weights"])
    def test_a_forged_array_is_refused(self, history, path, name, what):
        history.save(path)
        self.forge(path, lambda members: members.update({f"{name}.npy": FORGED_ARRAYS[what]}))
        with pytest.raises(ValueError, match=r"run\.npz (is damaged|does not hold a whole)"):
            History.load(path)

    @pytest.mark.parametrize(
        "description",
        [
            "[" * 100_000 + "]" * 100_000,
            '{"format": ' * 5000 + "1" + "}" * 5000,
            '"sgd_analysis.History"',
            "null",
            "",
            "9" * 10_000,
        ],
    )
    def test_a_forged_description_is_refused(self, history, path, description):
        history.save(path)
        self.redescribe(path, lambda _: description)
        with pytest.raises(ValueError, match=r"run\.npz is an \.npz file that History\.save did"):
            History.load(path)

    @pytest.mark.parametrize(
        "change", [{"metadata": [1]}, {"metadata": "mean"}, {"ranks": 3}, {"ranks": [{}]}, {}]
    )
    def test_a_forged_history_of_an_older_version_is_refused(self, history, path, change):
        history.save(path)

        def older(description):
            ours = description["history"] | change if change else []
            return json.dumps(description | {"version": 1, "history": ours})

        self.redescribe(path, older)
        with pytest.raises(ValueError, match=r"run\.npz does not hold a whole History"):
            History.load(path)

    @pytest.mark.parametrize("depth", [200, 600])
    def test_ranks_within_ranks_are_refused(self, history, path, depth):
        history.save(path)
        nested = '{"n_epochs": 2, "metadata": {}, "ranks": [' * depth + "]}" * depth

        def nest(description):
            return json.dumps(description | {"history": 0}).replace("0}", nested + "}")

        self.redescribe(path, nest)
        with pytest.raises(ValueError, match=r"run\.npz (is an \.npz file that|does not hold)"):
            History.load(path)

    @pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA])
    def test_a_compressed_archive_which_may_hold_terabytes_is_refused(
        self, history, path, compression
    ):
        history.save(path)
        self.forge(path, lambda _: None, compression)
        with pytest.raises(ValueError, match=r"description is compressed or encrypted"):
            History.load(path)

    def test_members_that_share_their_bytes_are_refused(self, history, path):
        history.save(path)
        whole = path.read_bytes()
        at = whole.index(b"PK\x01\x02")
        entry = whole[at : whole.index(b"PK\x01\x02", at + 1)]
        end = whole.rindex(b"PK\x05\x06")
        n_entries = int.from_bytes(whole[end + 8 : end + 10], "little") + 100
        size = int.from_bytes(whole[end + 12 : end + 16], "little") + 100 * len(entry)
        counts = n_entries.to_bytes(2, "little") * 2 + size.to_bytes(4, "little")
        tail = whole[end : end + 8] + counts + whole[end + 16 :]
        path.write_bytes(whole[:end] + 100 * entry + tail)
        with pytest.raises(ValueError, match=r"run\.npz is damaged or not complete"):
            History.load(path)

    def test_an_error_of_the_disk_is_not_taken_for_damage(self, history, path, monkeypatch):
        history.save(path)

        def fail(*args, **kwargs):
            raise OSError(5, "Input/output error")

        monkeypatch.setattr(zipfile, "ZipFile", fail)
        with pytest.raises(OSError, match="Input/output error"):
            History.load(path)

    def test_a_history_too_large_for_the_memory_says_so(self, history, path, monkeypatch):
        history.save(path)

        def fail(*args, **kwargs):
            raise MemoryError

        monkeypatch.setattr(np.lib.format, "read_array", fail)
        with pytest.raises(MemoryError):
            History.load(path)
