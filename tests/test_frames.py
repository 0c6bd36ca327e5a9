"""Float frames: none is lost without a message, strides are counted, and what is no number is named."""

import numpy as np
import pytest
import torch
from tiny_reader import config, quick_disk  # noqa: F401 (a fixture)

from dragoman.data.material import ImageMaterial, material_of
from dragoman.decode.readers.classifier import Classifier
from dragoman.decode.verify.reading import random_inputs
from dragoman.errors import DataError
from dragoman.inspect.subject import Subject
from dragoman.model.inputs import FrameConvolution, FrameInput, PatchInput
from dragoman.model.positions.position import Learned
from dragoman.model.positions.tokens import Frames
from dragoman.plan.synthetic import batch_for
from dragoman.train.events import Notice
from dragoman.train.recipe import RunConfig
from dragoman.train.run import start

HEAD = {"kind": "classification", "pooling": "mean"}
LONG = 700
STRIDED = FrameInput(channels=2, convolutions=(FrameConvolution(), FrameConvolution(stride=2)))


def frames_config(path, *, steps=1, inputs=None, **data) -> RunConfig:
    held = {"test": 5, "valid": 5, "near": None}
    data = {"kind": "labelled_arrays", "train": [{"kind": "arrays", "path": str(path)}], "hold_out": held} | data
    model = {"inputs": {"kind": "frame_input", "channels": 2} | (inputs or {}), "head": HEAD}
    return config("classification", data, model, steps, batch_tokens=4 * LONG, validate_every=1, save_every=1)


def numbers(count=20, length=LONG):
    return np.random.default_rng(0).normal(size=(count, length, 2))


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    path = tmp_path_factory.mktemp("arrays") / "frames.npz"
    np.savez(path, x=numbers(), y=np.arange(20) % 2)
    return path


@pytest.fixture(scope="module")
def run(archive, tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "run"
    list(start(frames_config(archive), path).events())
    return path


# ---- how many are read ----------------------------------------------------------------------------


def test_all_frames_are_read_where_nothing_limits_them(run):
    classifier = Classifier.load(run)
    given = numbers(1)[0]
    other = given.copy()
    other[600:] += 5
    first, second = (each.probability for each in classifier.classify([given, other]))
    assert len(classifier.material.rows([given], ["a"])[0]) == given.size and first != second
    assert all(len(row) % 2 == 0 for row in random_inputs(classifier, 3))


@pytest.mark.parametrize(
    ("limits", "says"),
    [
        ({}, None),
        ({"longest": LONG}, None),
        ({"longest": LONG - 1}, r"20 of 20 examples are cut to their first 699 frames (data.longest)"),
        ({"inputs": {"position": {"kind": "learned", "length": 300}}},
         r"20 of 20 examples are cut to their first 300 frames (the model's positions)"),
    ],
)  # fmt: skip
def test_a_notice_counts_examples_that_are_cut(limits, says, archive, tmp_path):
    events = list(start(frames_config(archive, **limits), tmp_path / "run").events())
    assert [e.text for e in events if isinstance(e, Notice) and "cut to" in e.text] == ([says] if says else [])


@pytest.mark.parametrize(("longest", "read"), [(None, 200), (150, 150), (500, 200)])
def test_frames_are_limited_by_positions_after_the_strides(longest, read):
    cfg = FrameInput(channels=2, convolutions=STRIDED.convolutions, position=Learned(length=100))
    material = material_of(cfg, None, longest=longest)
    rows = material.rows([np.ones((300, 2))], ["a"])
    assert len(rows[0]) // 2 == read
    vectors, _ = cfg.build(8).read(material.collate(rows))
    assert material.positions(np.array([len(rows[0])])).tolist() == [vectors.shape[1]] == [read // 2]


@pytest.mark.parametrize("strides", [(), (1,), (2,), (3,), (2, 2), (3, 2), (2, 5, 3)])
@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_positions_are_counted_as_convolutions_round(strides, kernel):
    cfg = FrameInput(channels=2, convolutions=tuple(FrameConvolution(kernel=kernel, stride=s) for s in strides))
    reader, material = cfg.build(4), material_of(cfg, None, longest=None)
    lengths = np.arange(1, 51)
    wanted = [reader.read(Frames(torch.zeros(1, int(length), 2), None))[0].shape[1] for length in lengths]
    assert material.positions(2 * lengths).tolist() == wanted


def test_a_batch_for_a_plan_has_as_many_positions_as_asked():
    cfg = frames_config("a.npz", inputs={"convolutions": [{"stride": 2}, {"stride": 3}]})
    batch = batch_for(cfg.model.sized(classes=2), cfg.task, rows=2, length=10)
    assert batch.content.inputs.values.shape == (2, 60, 2)


def test_each_vector_of_a_model_that_is_looked_into_has_the_name_of_its_frame(archive, tmp_path):
    inputs = {"convolutions": [{"stride": 2}], "position": {"kind": "learned", "length": 3}}
    list(start(frames_config(archive, inputs=inputs), tmp_path / "run").events())
    found = Subject.open(tmp_path / "run").inputs(numbers(1)[0])
    assert found.tokens == ("frame 0", "frame 2", "frame 4")


# ---- what is no number ----------------------------------------------------------------------------

BAD = {
    "nan": (np.nan, "is nan, no finite number: fill or remove it"),
    "infinity": (-np.inf, "is -inf, no finite number"),
    "too large": (1e300, "is 1e+300, more than float32 holds: scale it"),
}


@pytest.mark.parametrize("kind", BAD)
def test_frames_that_are_no_numbers_are_refused_before_training(kind, tmp_path, recwarn):
    number, says = BAD[kind]
    frames = numbers(length=4)
    frames[17, 2, 1] = number
    np.savez(tmp_path / "a.npz", x=frames, y=np.arange(20) % 2)
    with pytest.raises(DataError) as error:
        list(start(frames_config(tmp_path / "a.npz"), tmp_path / "run").events())
    assert f"a.npz: example 18: frame 3, channel 2 {says}" in str(error.value) and "\n" not in str(error.value)
    assert not recwarn.list


@pytest.mark.parametrize("kind", BAD)
def test_frames_that_are_no_numbers_are_not_blamed_on_the_model(kind, run, recwarn):
    number, says = BAD[kind]
    frames = numbers(2, 4)
    frames[1, 0, 0] = number
    with pytest.raises(DataError) as error:
        Classifier.load(run).classify(list(frames))
    assert f"example 2: frame 1, channel 1 {says}" in str(error.value) and not recwarn.list


def test_a_number_beyond_the_frames_that_are_read_does_not_count():
    material = material_of(STRIDED, None, longest=3)
    assert len(material.rows([np.array([[1, 2], [3, 4], [5, 6], [np.nan, 0]])], ["a"])[0]) == 6


@pytest.mark.parametrize("kind", BAD)
def test_pixels_that_are_no_numbers_are_named(kind, recwarn):
    number, says = BAD[kind]
    image = np.zeros((4, 8, 3))
    image[1, 2, 0] = number
    material = ImageMaterial(PatchInput(size=(4, 8), patch=4))
    with pytest.raises(DataError) as error:
        material.rows([image], ["a.npy: entry 1"])
    assert f"a.npy: entry 1: row 2, column 3, channel 1 {says}" in str(error.value) and not recwarn.list
