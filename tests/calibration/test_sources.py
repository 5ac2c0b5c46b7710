"""Every kind of calibration data, and what is said of data that do not fit."""

from __future__ import annotations

import numpy as np
import pytest

from onnx_sipp.calibration.sources import InputSpec, held_out_mask, open_source
from onnx_sipp.errors import SippError, UsageError


def spec(name="x", dtype=np.float32, shape=("N", 3)):
    return InputSpec(name, np.dtype(dtype), shape)


X = np.arange(30, dtype=np.float32).reshape(10, 3)


def stacked(source, name="x"):
    """All feeds of an input, twice the same."""
    one, two = ([feed[name] for feed in source] for _ in range(2))
    assert len(one) == len(two) == len(source)
    for a, b in zip(one, two, strict=True):
        assert isinstance(a, np.ndarray)
        np.testing.assert_array_equal(a, b)
    return one


class TestTables:
    @pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
    def test_npz(self, tmp_path, save):
        save(tmp_path / "a.npz", x=X, m=np.arange(10))
        specs = [spec(), spec("m", np.int32, (None,))]
        source = open_source(tmp_path / "a.npz", specs)
        assert source.description == "a.npz (10 samples)"
        assert not source.synthetic
        assert source.notes == ()
        feeds = stacked(source)
        assert feeds[0].shape == (1, 3)
        np.testing.assert_array_equal(np.concatenate(feeds), X)
        assert [m.tolist() for m in stacked(source, "m")] == [[i] for i in range(10)]
        assert next(iter(source))["m"].dtype == np.int32

    def test_a_path_may_be_a_string(self, tmp_path):
        np.save(tmp_path / "a.npy", X)
        source = open_source(str(tmp_path / "a.npy"), [spec()])
        np.testing.assert_array_equal(np.concatenate(stacked(source)), X)

    @pytest.mark.parametrize("suffix", ["npy", "npz"])
    def test_column_order(self, tmp_path, suffix):
        array = np.asfortranarray(X)
        path = tmp_path / f"a.{suffix}"
        np.save(path, array) if suffix == "npy" else np.savez(path, x=array)
        feeds = stacked(open_source(path, [spec()]))
        assert all(feed.flags.c_contiguous for feed in feeds)
        np.testing.assert_array_equal(np.concatenate(feeds), X)

    def test_array_and_dict_of_arrays(self):
        for calibration in (X, X.astype(np.float64), {"x": X, "labels": np.zeros(10)}):
            source = open_source(calibration, [spec()])
            np.testing.assert_array_equal(np.concatenate(stacked(source)), X)
        assert source.description == "arrays in memory (10 samples)"
        assert source.notes == (
            "arrays in memory: ignored 'labels', which the model does not take",
        )

    def test_an_opened_npz(self, tmp_path):
        np.savez(tmp_path / "a.npz", x=X)
        with np.load(tmp_path / "a.npz") as archive:
            assert len(open_source(archive, [spec()])) == 10

    def test_the_first_samples(self):
        source = open_source(X, [spec()], num_samples=4)
        assert source.description == "array in memory (first 4 of 10 samples)"
        np.testing.assert_array_equal(np.concatenate(stacked(source)), X[:4])
        assert len(open_source(X, [spec()], num_samples=40)) == 10

    def test_samples_that_are_not_used_are_not_checked(self):
        bad = X.copy()
        bad[4] = np.nan
        assert len(open_source(bad, [spec()], num_samples=4)) == 4

    def test_a_nan_is_told_with_its_sample(self, tmp_path):
        bad = X.copy()
        bad[7, 1] = np.nan
        np.savez(tmp_path / "a.npz", x=bad)
        with pytest.raises(
            SippError, match=r"a\.npz, sample 7: input 'x' holds nan at \[1\].*finite"
        ):
            open_source(tmp_path / "a.npz", [spec()])

    def test_a_fixed_batch(self):
        source = open_source(X, [spec(shape=(4, 3))])
        assert source.description == "array in memory (2 batches of 4 samples)"
        assert source.notes == ("the last 2 samples do not fill a batch of 4 and are not used",)
        assert [feed.shape for feed in stacked(source)] == [(4, 3)] * 2
        np.testing.assert_array_equal(np.concatenate(stacked(source)), X[:8])

    def test_a_fixed_batch_limited(self):
        source = open_source(X, [spec(shape=(4, 3))], num_samples=1)
        assert source.description == "array in memory (first 1 of 2 batches of 4 samples)"
        assert source.notes == ()

    def test_a_nan_in_a_batch(self):
        bad = X.copy()
        bad[6, 1] = np.inf
        with pytest.raises(SippError, match=r"sample 6: input 'x' holds inf at \[1\]"):
            open_source(bad, [spec(shape=(4, 3))])

    def test_one_sample_left_over(self):
        source = open_source(X, [spec(shape=(3, 3))])
        assert source.notes == ("the last sample does not fill a batch of 3 and is not used",)

    def test_too_few_for_a_batch(self):
        with pytest.raises(SippError, match=r"has 10 samples, but .* batches of 16: .* least 16"):
            open_source(X, [spec(shape=(16, 3))])

    def test_a_fixed_leading_dimension_that_is_no_batch(self):
        state = np.arange(10 * 2 * 1 * 4, dtype=np.float32).reshape(10, 2, 1, 4)
        specs = [spec(), spec("state", shape=(2, 1, 4))]
        source = open_source({"x": X, "state": state}, specs)
        np.testing.assert_array_equal(np.stack(stacked(source, "state")), state)
        assert source.description == "arrays in memory (10 samples)"

    def test_rows_beside_whole_inputs(self):
        state = np.zeros((2, 5, 4), np.float32)
        specs = [spec(shape=(4, 3)), spec("state", shape=(5, 4))]
        assert len(open_source({"x": X, "state": state}, specs)) == 2
        with pytest.raises(
            SippError, match=r"'x' has 10 samples, but input 'state' has 4 \(a feed takes 4 of 'x'"
        ):
            open_source({"x": X, "state": np.zeros((4, 5, 4), np.float32)}, specs)

    def test_one_more_axis_of_a_dynamic_input(self):
        sequences = np.zeros((6, 7, 3), np.float32)
        assert stacked(open_source(sequences, [spec(shape=("seq", 3))]))[0].shape == (7, 3)

    def test_no_elements_in_the_leading_dimension(self):
        past = np.zeros((10, 0, 3), np.float32)
        assert stacked(open_source(past, [spec(shape=(0, 3))]))[0].shape == (0, 3)

    def test_unknown_rank(self):
        assert stacked(open_source(X, [spec(shape=None)]))[0].shape == (1, 3)

    def test_scalars(self, tmp_path):
        specs = [spec(), spec("shared", np.int64, ()), spec("own", np.float32, ())]
        arrays = {"x": X, "shared": np.array(16000), "own": np.arange(10.0)}
        np.savez(tmp_path / "a.npz", **arrays)
        for calibration in (arrays, tmp_path / "a.npz"):
            source = open_source(calibration, specs)
            assert [int(v) for v in stacked(source, "shared")] == [16000] * 10
            assert [float(v) for v in stacked(source, "own")] == list(range(10))
            assert next(iter(source))["own"].shape == ()

    def test_nothing_but_a_shared_scalar(self):
        assert len(open_source({"x": np.float32(1)}, [spec(shape=())])) == 1

    def test_a_scalar_of_two_axes(self):
        with pytest.raises(SippError, match=r"must have shape \[samples\], but it has \[10, 3\]"):
            open_source(X, [spec(shape=())])

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_a_shared_scalar_is_checked(self, value):
        with pytest.raises(SippError, match=r"'x' holds (nan|inf). Every value"):
            open_source({"x": np.float32(value)}, [spec(shape=())])

    def test_counts_must_agree(self, tmp_path):
        np.savez(tmp_path / "a.npz", x=X, m=np.arange(9))
        with pytest.raises(SippError, match=r"a\.npz: input 'x' has 10 samples, but .* 'm' has 9"):
            open_source(tmp_path / "a.npz", [spec(), spec("m", np.int64, ("N",))])

    def test_no_samples(self, tmp_path):
        np.savez(tmp_path / "a.npz", x=X[:0])
        with pytest.raises(SippError, match=r"a\.npz: input 'x' .* no samples"):
            open_source(tmp_path / "a.npz", [spec()])

    def test_names(self, tmp_path):
        np.savez(tmp_path / "a.npz", images=X)
        with pytest.raises(SippError, match=r"a\.npz: no array for input 'x'.*mean 'images'"):
            open_source(tmp_path / "a.npz", [spec()])
        with pytest.raises(SippError, match="arrays in memory: no array for input 'x'"):
            open_source({"y": X}, [spec()])

    def test_names_with_slashes_and_dots(self, tmp_path):
        name = "serving/input.1:0"
        np.savez(tmp_path / "a.npz", **{name: X})
        assert len(open_source(tmp_path / "a.npz", [spec(name)])) == 10

    def test_labels_are_ignored_and_told(self, tmp_path):
        np.savez(tmp_path / "a.npz", x=X, labels=np.arange(3), weights=[1])
        assert open_source(tmp_path / "a.npz", [spec()]).notes == (
            "a.npz: ignored 'labels', 'weights', which the model does not take",
        )

    def test_types_and_shapes_are_told_before_the_data_is_read(self, tmp_path):
        np.savez(tmp_path / "a.npz", x=np.zeros((5, 28, 28), np.uint8))
        with pytest.raises(SippError, match=r"a\.npz: input 'x' must be float32, but it is uint8"):
            open_source(tmp_path / "a.npz", [spec(shape=("N", 1, 28, 28))])
        np.savez(tmp_path / "a.npz", x=np.zeros((5, 28, 28), np.float32))
        with pytest.raises(
            SippError, match=r"shape \[samples, 1, 28, 28\], but it has \[5, 28, 28\].*reshape"
        ):
            open_source(tmp_path / "a.npz", [spec(shape=("N", 1, 28, 28))])

    def test_one_array_for_several_inputs(self, tmp_path):
        np.save(tmp_path / "a.npy", X)
        for calibration in (X, tmp_path / "a.npy"):
            with pytest.raises(SippError, match="is one array, but the model has 2 inputs: 'x', "):
                open_source(calibration, [spec(), spec("y")])


class TestFolders:
    def test_files_in_the_order_of_their_names(self, tmp_path):
        np.savez(tmp_path / "b.npz", x=X[4:])
        np.savez_compressed(tmp_path / "a.npz", x=X[:4], labels=[1])
        (tmp_path / "notes.txt").write_text("not data")
        (tmp_path / "._a.npz").write_text("not data either")
        source = open_source(tmp_path, [spec()])
        assert source.description == f"{tmp_path.name} (10 samples)"
        assert source.notes == (
            f"{tmp_path.name}: ignored 'labels', which the model does not take",
        )
        np.testing.assert_array_equal(np.concatenate(stacked(source)), X)

    @pytest.mark.parametrize("order", ["C", "F"])
    def test_a_file_per_sample(self, tmp_path, order):
        images = np.arange(60, dtype=np.float32).reshape(5, 3, 4)
        for index, image in enumerate(images):
            np.save(tmp_path / f"{index}.npy", np.asarray(image, order=order))
        source = open_source(tmp_path, [spec(shape=("N", 3, 4))])
        np.testing.assert_array_equal(np.concatenate(stacked(source)), images)
        source = open_source(tmp_path, [spec(shape=(2, 3, 4))])
        np.testing.assert_array_equal(np.concatenate(stacked(source)), images[:4])

    @pytest.mark.parametrize("shape", [(), ("N",)])
    def test_a_file_per_number(self, tmp_path, shape):
        for index in range(3):
            np.save(tmp_path / f"{index}.npy", np.float32(index))
        feeds = stacked(open_source(tmp_path, [spec(shape=shape)]))
        assert [feed.item() for feed in feeds] == [0, 1, 2]
        assert feeds[0].ndim == len(shape)

    def test_batches_go_on_in_the_next_file(self, tmp_path):
        for index, part in enumerate(np.split(X, [3, 7])):
            np.savez(tmp_path / f"{index}.npz", x=part, m=np.arange(len(part)))
        specs = [spec(shape=(4, 3)), spec("m", np.int64, (4,))]
        source = open_source(tmp_path, specs)
        assert len(source) == 2
        assert source.notes == ("the last 2 samples do not fill a batch of 4 and are not used",)
        np.testing.assert_array_equal(np.concatenate(stacked(source)), X[:8])
        assert [m.tolist() for m in stacked(source, "m")] == [[0, 1, 2, 0], [1, 2, 3, 0]]

    def test_batches_over_files_need_equal_shapes(self, tmp_path):
        for index in (1, 2):
            np.save(tmp_path / f"{index}.npy", np.zeros((1, index), np.float32))
        assert len(open_source(tmp_path, [spec(shape=("N", "seq"))])) == 2
        with pytest.raises(SippError, match=r"1\.npy and the files after it: .*different shapes"):
            open_source(tmp_path, [spec(shape=(2, "seq"))])

    def test_a_batch_and_a_whole_input_over_files(self, tmp_path):
        specs = [spec(shape=(2, 3)), spec("state", shape=(5,))]
        np.savez(tmp_path / "1.npz", x=X[:4], state=np.zeros((2, 5), np.float32))
        np.savez(tmp_path / "2.npz", x=X[:6], state=np.zeros((3, 5), np.float32))
        assert len(open_source(tmp_path, specs)) == 5
        np.savez(tmp_path / "2.npz", x=X[:5], state=np.zeros((2, 5), np.float32))
        with pytest.raises(SippError, match=r"2\.npz: input 'x' has 5 samples, .* 'state' has 2"):
            open_source(tmp_path, specs)

    def test_errors_name_the_file_and_its_sample(self, tmp_path):
        bad = X[4:].copy()
        bad[2] = np.nan
        np.savez(tmp_path / "a.npz", x=X[:4])
        np.savez(tmp_path / "b.npz", x=bad)
        with pytest.raises(SippError, match=r"b\.npz, sample 2: input 'x' holds nan"):
            open_source(tmp_path, [spec()])

    def test_shared_numbers_must_be_the_same_in_all_files(self, tmp_path):
        specs = [spec(), spec("rate", np.int64, ())]
        for name in "ab":
            np.savez(tmp_path / f"{name}.npz", x=X, rate=16000)
        assert len(open_source(tmp_path, specs)) == 20
        np.savez(tmp_path / "b.npz", x=X, rate=8000)
        with pytest.raises(SippError, match=r"b\.npz: input 'rate' is another number than"):
            open_source(tmp_path, specs)

    def test_files_must_have_the_same_layout(self, tmp_path):
        np.save(tmp_path / "a.npy", np.zeros((4, 3), np.float32))
        np.save(tmp_path / "b.npy", np.zeros((2, 4, 3), np.float32))
        with pytest.raises(SippError, match=r"b\.npy: input 'x' has 3 axes, but 2 in .*a\.npy"):
            open_source(tmp_path, [spec(shape=("N", 3))])

    def test_an_empty_sample(self, tmp_path):
        np.save(tmp_path / "a.npy", np.zeros((0, 3), np.float32))
        with pytest.raises(SippError, match="must have shape"):
            open_source(tmp_path, [spec(shape=("N", "seq", 3))])

    def test_nothing_in_it(self, tmp_path):
        (tmp_path / "photo.png").touch()
        with pytest.raises(UsageError, match=r"holds no calibration data; give a \.npz file"):
            open_source(tmp_path, [spec()])


class TestFeeds:
    feeds = tuple({"x": X[i : i + 1]} for i in range(10))

    @pytest.mark.parametrize("make", [list, tuple, iter])
    def test_lists_and_iterators(self, make):
        source = open_source(make(self.feeds), [spec()])
        assert source.description == "feeds in memory (10 feeds)"
        assert not source.synthetic
        np.testing.assert_array_equal(np.concatenate(stacked(source)), X)

    def test_a_feed_is_taken_as_it_is(self):
        feeds = [{"x": X[:4]}, {"x": X[4:]}]
        assert [len(feed) for feed in stacked(open_source(feeds, [spec()]))] == [4, 6]

    def test_a_fixed_batch_must_be_full(self):
        with pytest.raises(SippError, match=r"feed 1: .* shape \[4, 3\], but it has \[2, 3\]"):
            open_source([{"x": X[:4]}, {"x": X[4:6]}], [spec(shape=(4, 3))])

    def test_iterators_are_read_no_further_than_needed(self):
        def endless():
            while True:
                yield self.feeds[0]

        assert len(open_source(endless(), [spec()], num_samples=3)) == 3

    def test_a_buffer_that_is_filled_anew(self):
        def reusing():
            buffer = np.empty((1, 3), np.float32)
            for row in X:
                buffer[:] = row
                yield {"x": buffer}

        np.testing.assert_array_equal(np.concatenate(stacked(open_source(reusing(), [spec()]))), X)

    def test_a_sequence_is_asked_for_one_feed_at_a_time(self):
        class Lazy:
            asked: list[int] = []  # noqa: RUF012

            def __len__(self):
                return 10

            def __getitem__(self, index):
                self.asked.append(index)
                return {"x": X[index : index + 1]}

        source = open_source(Lazy(), [spec()], num_samples=2)
        assert source.description == "feeds in memory (first 2 of 10 feeds)"
        assert Lazy.asked == [0, 1]
        next(iter(source))
        assert Lazy.asked == [0, 1, 0]

    def test_a_calibration_data_reader(self):
        class Reader:
            def __init__(self):
                self.feeds = iter(TestFeeds.feeds)

            def get_next(self):
                return next(self.feeds, None)

        source = open_source(Reader(), [spec()], num_samples=4)
        assert source.description == "Reader (4 feeds)"
        np.testing.assert_array_equal(np.concatenate(stacked(source)), X[:4])
        assert len(open_source(Reader(), [spec()])) == 10

    def test_extra_arrays(self):
        source = open_source([{"x": X, "labels": 1}, {"x": X, "more": 2}], [spec()])
        assert source.notes == (
            "feeds in memory: ignored 'labels', 'more', which the model does not take",
        )
        assert all(list(feed) == ["x"] for feed in source)

    @pytest.mark.parametrize(
        ("feeds", "message"),
        [
            ([], "there is no feed"),
            ([{"x": X}, X], "feed 1: must be a dict of arrays by input name, but it is a ndarray"),
            ([{"y": X}], "feed 0: no array for input 'x' of the model; found 'y'"),
            ([{"x": X}, {"x": X * np.nan}], r"feed 1: input 'x' holds nan at \[0, 0\]"),
            ([{"x": X.astype(int)}], "feed 0: input 'x' must be float32, but it is int64"),
            ([{"x": X[0]}], r"feed 0: input 'x' must have shape \[N, 3\].*newaxis"),
            ([{"x": X[:0]}], "feed 0: input 'x' .* no sample"),
            ([{"x": [[1.0], [2.0, 3.0]]}], "feed 0: input 'x' must be an array"),
        ],
    )
    def test_errors(self, feeds, message):
        for calibration in (feeds, iter(feeds)):
            with pytest.raises(SippError, match=f"^feeds in memory.*{message}"):
                open_source(calibration, [spec()])


class TestArguments:
    def test_input_shapes_hold_for_data(self):
        specs = [spec(shape=("N", "features"))]
        source = open_source(X, specs, input_shapes={"x": (5, 3)})
        assert [len(feed) for feed in stacked(source)] == [5, 5]
        with pytest.raises(SippError, match=r"must have shape \[samples, 4\]"):
            open_source(X, specs, input_shapes={"x": (1, 4)})
        with pytest.raises(UsageError, match="no such input"):
            open_source(X, specs, input_shapes={"z": (1, 3)})

    @pytest.mark.parametrize("count", [0, -1])
    def test_the_number_of_samples(self, count):
        with pytest.raises(UsageError, match="at least 1"):
            open_source(X, [spec()], num_samples=count)

    def test_a_model_without_inputs(self):
        with pytest.raises(SippError, match="no input that can be fed"):
            open_source(X, [])

    def test_no_such_path(self, tmp_path):
        with pytest.raises(UsageError, match=r"none.npz: there is no such file or folder; give a"):
            open_source(tmp_path / "none.npz", [spec()])

    def test_another_kind_of_file(self, tmp_path):
        (tmp_path / "a.csv").touch()
        with pytest.raises(UsageError, match=r"a\.csv: is no calibration data; give a \.npz"):
            open_source(tmp_path / "a.csv", [spec()])

    @pytest.mark.parametrize("value", [3, b"bytes", object()])
    def test_another_kind_of_value(self, value):
        with pytest.raises(UsageError, match="calibration data cannot be a "):
            open_source(value, [spec()])


class TestHeldOut:
    @pytest.mark.parametrize("fraction", [0.01, 0.2, 0.5, 0.99])
    def test_every_count(self, fraction):
        for count in range(2, 300):
            mask = held_out_mask(count, fraction)
            assert mask.shape == (count,)
            assert mask.dtype == np.bool_
            assert mask.sum() == min(max(1, round(count * fraction)), count - 1)
            gaps = np.diff(np.flatnonzero(mask))
            assert gaps.max(initial=0) <= 2 * np.ceil(count / mask.sum())

    def test_small_counts(self):
        assert held_out_mask(0).tolist() == []
        assert held_out_mask(1).tolist() == [False]
        assert sorted(held_out_mask(2).tolist()) == [False, True]

    def test_it_is_deterministic(self):
        np.testing.assert_array_equal(held_out_mask(100), held_out_mask(100))

    @pytest.mark.parametrize("period", [2, 5, 10])
    def test_periodic_data_is_seen_evenly(self, period):
        classes = np.arange(500) % period
        held = np.bincount(classes[held_out_mask(500)], minlength=period)
        assert held.min() >= 0.5 * 100 / period
