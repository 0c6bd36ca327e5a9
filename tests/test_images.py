"""Images and float frames that are classified: from folders, arrays and tables to labels; mistakes name their place."""

import io
import json
import struct
import subprocess
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from tiny_reader import BLOCK, config, quick_disk, trained  # noqa: F401 (a fixture)
from tiny_run import outcome

from dragoman.api.results import evaluate
from dragoman.cli import main
from dragoman.data.arrays import Arrays, ArrayTable, Digits, ImageFolder, guess_arrays, read_array, read_arrays
from dragoman.data.augment import ShiftAndFlip
from dragoman.data.image_files import read_image
from dragoman.data.material import FrameMaterial, ImageMaterial
from dragoman.decode.readers.classifier import Classifier
from dragoman.errors import ConfigError, DataError
from dragoman.evaluate.baseline import ArrayFeatures
from dragoman.model.inputs import FrameInput, PatchInput
from dragoman.model.preprocessing import ImagePreprocessing, OwnSize
from dragoman.text.store import Store
from dragoman.train.events import Saved
from dragoman.train.run import resume, start

Image = pytest.importorskip("PIL.Image")
features = pytest.importorskip("PIL.features")
ImageOps = pytest.importorskip("PIL.ImageOps")

HEAD = {"kind": "classification", "pooling": "mean"}
PATCHES = {"kind": "patch_input", "size": [8, 8], "patch": 4, "channels": 1, "class_token": False}
QUARTERS = [(slice(0, 4), slice(0, 4)), (slice(0, 4), slice(4, 8)), (slice(4, 8), slice(0, 4)), (slice(4, 8),) * 2]
POSITIONS = {  # in the inputs, inside attention
    "learned": ("learned_grid", "no_position"),
    "sinusoidal": ("sinusoidal_grid", "no_position"),
    "rotary": ("no_grid", "rotary_grid"),
}


def bright_quarters(count=160, seed=1):
    """Noise, and one quarter brighter: the label says which."""
    draw = np.random.default_rng(seed)
    labels = draw.integers(4, size=count)
    images = draw.integers(0, 80, (count, 8, 8), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[QUARTERS[label]] += 150
    return images, labels


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    path = tmp_path_factory.mktemp("arrays") / "quarters.npz"
    images, labels = bright_quarters()
    np.savez(path, x=images, y=labels)
    return path


def run_config(path, *, steps=45, positions="learned", task="classification", data=None, **train):
    added, inside = POSITIONS.get(positions, ("no_grid", "no_position"))
    block = BLOCK | {"mixer": {"heads": 2, "position": inside, "visibility": "full"}}
    model = {"inputs": PATCHES | {"position": added}, "tower": {"pattern": [block]}, "head": HEAD}
    held = {"test": 30, "valid": 30, "near": None}
    data = {"kind": "labelled_arrays", "train": [{"kind": "arrays", "path": str(path)}], "hold_out": held} | (
        data or {}
    )
    return config(task, data, model, steps, batch_tokens=80, **train)


@pytest.fixture(scope="module")
def run(archive, tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "run"
    trained(run_config(archive), path)
    return path


# ---- learning -------------------------------------------------------------------------------------


@pytest.mark.parametrize("positions", POSITIONS)
def test_where_something_is_can_be_learned_with_positions_of_every_kind(positions, archive, tmp_path):
    _, seen = trained(run_config(archive, positions=positions), tmp_path / "run")
    assert seen.scores["accuracy"] > 90


def test_where_something_is_cannot_be_learned_without_positions(archive, tmp_path):
    _, seen = trained(run_config(archive, positions="none"), tmp_path / "run")
    assert seen.scores["accuracy"] < 60


def test_a_run_with_images_changed_at_random_is_resumed_to_the_bit(archive, tmp_path):
    cfg = run_config(archive, steps=12, task={"kind": "classification", "augment": "shift_and_flip"}, validate_every=4)
    list(start(cfg, tmp_path / "whole").events())
    stopped = start(cfg, tmp_path / "stopped").events()
    assert any(isinstance(event, Saved) and event.step == 6 for event in stopped)
    stopped.close()
    list(resume(tmp_path / "stopped", cfg=cfg).events())
    assert outcome(tmp_path / "stopped") == outcome(tmp_path / "whole")


def test_frames_go_through_the_same_lesson(tmp_path):
    draw = np.random.default_rng(2)
    labels = draw.integers(2, size=120)
    frames = draw.normal(size=(120, 6, 3)).astype(np.float32)
    frames[:, :, 0] += np.where(labels == 1, 3.0, -3.0)[:, None]
    np.savez(tmp_path / "frames.npz", x=frames, y=np.array(["low", "high"])[labels], n=draw.integers(2, 7, 120))
    data = {
        "kind": "labelled_arrays",
        "train": [{"kind": "arrays", "path": str(tmp_path / "frames.npz"), "lengths": "n"}],
        "hold_out": {"test": 20, "valid": 20, "near": None},
    }
    model = {"inputs": {"kind": "frame_input", "channels": 3}, "head": HEAD}
    _, seen = trained(config("classification", data, model, 30, batch_tokens=100), tmp_path / "run")
    assert seen.scores["accuracy"] > 90
    classifier = Classifier.load(tmp_path / "run")
    some = [frames[0], frames[1, :3]]
    for one, together in zip(some, classifier.classify(some), strict=True):
        assert classifier.classify([one])[0].probability == pytest.approx(together.probability, abs=1e-5)


def test_evaluation_reads_the_kept_test_set_and_has_logistic_regression_beside(run, capsys):
    assert main(["evaluate", str(run)]) == 0
    out = capsys.readouterr().out
    assert "logistic regression on pixels" in out and "taken for" in out
    kept = json.loads((run / "evaluations" / "test" / "scores.json").read_text())
    assert kept["sentences"] == 30 and kept["scores"]["accuracy"]["value"] > 90


def test_the_baseline_on_numbers_is_the_logistic_regression_of_scikit_learn():
    linear_model = pytest.importorskip("sklearn.linear_model")
    images, labels = bright_quarters(60)
    ours = ArrayFeatures(list(images), [str(label) for label in labels], ["0", "1", "2", "3"], over_time=False)
    theirs = linear_model.LogisticRegression(tol=1e-8, max_iter=1000).fit(ours.features(list(images)).numpy(), labels)
    new, _ = bright_quarters(20, seed=2)
    features = ours.features(list(new))
    expected = torch.from_numpy(theirs.predict_proba(features.numpy())).float()
    torch.testing.assert_close(ours.logits(features).softmax(dim=1), expected, atol=2e-3, rtol=0)


# ---- what is read ---------------------------------------------------------------------------------


def png(array, mode=None, kind="PNG"):
    content = io.BytesIO()
    Image.fromarray(array, mode).save(content, kind)
    return content.getvalue()


@pytest.fixture
def folder(tmp_path):
    images, labels = bright_quarters(40)
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        (tmp_path / "images" / f"quarter {label}").mkdir(parents=True, exist_ok=True)
        (tmp_path / "images" / f"quarter {label}" / f"{i:02}.png").write_bytes(png(image))
    return tmp_path / "images"


def test_a_folder_of_files_and_an_archive_of_arrays_say_the_same(folder, tmp_path):
    images, labels = bright_quarters(40)
    np.savez(tmp_path / "a.npz", x=images, y=[f"quarter {label}" for label in labels])
    material = ImageMaterial(PatchInput(size=(8, 8), patch=4, channels=1))

    def rows(source):
        found = read_arrays(source)
        read = material.rows([e.given for e in found], [e.where for e in found])
        return sorted((e.label, tuple(row.tolist())) for e, row in zip(found, read, strict=True))

    assert guess_arrays(str(folder)) == ImageFolder(path=str(folder))
    assert rows(ImageFolder(path=str(folder))) == rows(Arrays(path=str(tmp_path / "a.npz")))


def test_every_kind_of_image_file_is_read_and_hidden_ones_are_not(tmp_path):
    image = Image.fromarray(bright_quarters(1)[0][0])
    kinds = {".png": "PNG", ".TIF": "TIFF", ".tiff": "TIFF", ".jfif": "JPEG", ".pgm": "PPM", ".webp": "WEBP"}
    for ending, kind in kinds.items():
        (tmp_path / f"label {ending[1:]}").mkdir()
        (tmp_path / f"label {ending[1:]}" / f"x{ending}").write_bytes(saved(image, kind))
    for hidden in (".ipynb_checkpoints", "label png/.thumbnails", "label png/more/.cache/deep"):
        (tmp_path / hidden).mkdir(parents=True)
        (tmp_path / hidden / "x.png").write_bytes(png(np.array(image)))
    (tmp_path / "label png" / "._x.png").write_bytes(b"what another system writes beside a file")
    (tmp_path / "label png" / "notes.txt").write_text("no image")
    found = read_arrays(ImageFolder(path=str(tmp_path)))
    assert sorted(e.label for e in found) == sorted(f"label {ending[1:]}" for ending in kinds)
    material = ImageMaterial(PatchInput(size=(8, 8), patch=4, channels=1))
    assert len(material.rows([e.given for e in found], [e.where for e in found])) == len(kinds)


def test_an_image_file_that_is_not_known_here_is_named_and_not_left_out(folder):
    (folder / "quarter 1" / "photo.HEIC").write_bytes(b"\0\0\0\x18ftypheic")
    found = read_arrays(ImageFolder(path=str(folder)))
    with pytest.raises(DataError, match=r"photo\.HEIC: not an image that can be read"):
        material = ImageMaterial(PatchInput(size=(8, 8), patch=4, channels=1))
        material.rows([e.given for e in found], [e.where for e in found])


@pytest.mark.parametrize("inside", [None, "notes.txt", ".x.png"])
def test_a_label_without_images_is_named(inside, folder):
    (folder / "empty").mkdir()
    if inside:
        (folder / "empty" / inside).write_bytes(b"x")
    with pytest.raises(DataError, match="empty: holds no image files"):
        read_arrays(ImageFolder(path=str(folder)))


def test_a_table_may_hold_numbers_or_files(tmp_path):
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    images, labels = bright_quarters(5)
    columns = {"image": [image.tolist() for image in images], "label": labels}
    parquet.write_table(arrow.table(columns), tmp_path / "numbers.parquet")
    columns = {"image": [{"bytes": png(image)} for image in images], "label": labels}
    parquet.write_table(arrow.table(columns), tmp_path / "files.parquet")
    material = ImageMaterial(PatchInput(size=(8, 8), patch=4, channels=1))
    for name in ("numbers", "files"):
        found = read_arrays(ArrayTable(path=str(tmp_path / f"{name}.parquet")))
        rows = material.rows([e.given for e in found], [e.where for e in found])
        np.testing.assert_array_equal(np.stack(rows).reshape(images.shape), images)
    with pytest.raises(DataError, match=r"files\.parquet: no column 'picture' among image, label"):
        read_arrays(ArrayTable(path=str(tmp_path / "files.parquet"), inputs="picture"))


def test_shades_become_minus_one_to_one_and_floats_stay_as_they_are():
    material = ImageMaterial(PatchInput(size=(1, 2), patch=1, channels=1))
    shades, floats = np.array([[0, 255]], np.uint8), np.array([[0.25, 7.0]])
    assert material.collate(material.rows([shades], ["a"])).tolist() == [[[[-1.0, 1.0]]]]
    assert material.collate(material.rows([floats], ["a"])).tolist() == [[[[0.25, 7.0]]]]


def test_pixels_beside_floats_are_normalised_as_they_are_alone(folder, tmp_path):
    files = sorted(folder.rglob("*.png"))
    floats = np.random.default_rng(3).normal(size=(8, 8, 8)).astype(np.float32)
    np.savez(tmp_path / "floats.npz", x=floats, y=["quarter 0"] * 8)
    data = {
        "train": [{"kind": "image_folder", "path": str(folder)}],
        "test": {"kind": "arrays", "path": str(tmp_path / "floats.npz")},
        "hold_out": {"test": 5, "valid": 5, "near": None},
    }
    list(start(run_config(None, steps=1, data=data), tmp_path / "run").events())
    material = Classifier.load(tmp_path / "run").material
    alone = {tuple(image.flatten().tolist()) for image in material.collate(material.rows(files, list(map(str, files))))}
    for name in ("train", "valid"):
        store = Store.open(tmp_path / "run" / "data" / name)
        batch = material.collate([store.columns["given"].raw_row(i) for i in range(len(store))])
        assert {tuple(image.flatten().tolist()) for image in batch} <= alone
    together = material.collate(material.rows([files[0], floats[0]], ["a", "b"]))
    assert torch.equal(together[:1], material.collate(material.rows([files[0]], ["a"])))
    assert torch.equal(together[1, 0], torch.from_numpy(floats[0]))


def test_the_baseline_reads_images_as_the_model_does(run, tmp_path):
    images, labels = bright_quarters(40, seed=9)
    results = []
    for name, given in (("pixels", images), ("floats", images / np.float32(127.5) - 1)):
        np.savez(tmp_path / f"{name}.npz", x=given, y=labels)
        results.append(evaluate(run, str(tmp_path / f"{name}.npz"), save=False))
    assert results[0].baseline == results[1].baseline and results[0].scores == results[1].scores


def test_channels_of_files_are_converted_and_arrays_have_theirs_last():
    colour = np.random.default_rng(1).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    material = ImageMaterial(PatchInput(size=(4, 6), patch=2))
    of_array, of_file = material.rows([colour, png(colour)], ["a", "b"])
    np.testing.assert_array_equal(of_array, of_file)
    np.testing.assert_array_equal(of_array.reshape(3, 4, 6), colour.transpose(2, 0, 1))
    grey = material.rows([png(colour[:, :, 0])], ["c"])[0].reshape(3, 4, 6)
    assert (grey == colour[:, :, 0]).all()


RAMP = np.arange(16, dtype=np.uint16).reshape(4, 4) * 4096
"""Gray of 16 bits, from black to almost white."""


def saved(image, kind, **options):
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def read_in(channels, given):
    """Return what a model of 4 x 4 pixels reads of an image, channel by channel."""
    material = ImageMaterial(PatchInput(size=(4, 4), patch=2, channels=channels))
    return material.rows([given], ["picture"])[0].reshape(channels, 4, 4)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_gray_of_16_bits_keeps_its_upper_8(kind, channels):
    read = read_in(channels, saved(Image.fromarray(RAMP), kind))
    assert (read[:3] == RAMP // 256).all() and (read[3:] == 255).all()


def test_gray_of_16_bits_is_read_in_either_order_of_bytes():
    big_endian = Image.frombytes("I;16B", (4, 4), RAMP.astype(">u2").tobytes())
    assert (read_in(1, saved(big_endian, "TIFF")) == RAMP // 256).all()


def test_gray_of_12_bits_keeps_its_upper_8():
    packed = b"".join(bytes([a >> 4, a << 4 & 255 | b >> 8, b & 255]) for a, b in (RAMP.reshape(-1, 2) >> 4).tolist())
    tags = [(256, 4), (257, 4), (258, 12), (259, 1), (262, 1), (273, 8), (277, 1), (278, 4), (279, len(packed))]
    tags = [(tag, value if tag != 273 else 8 + 2 + 12 * len(tags) + 4) for tag, value in tags]
    fields = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    file = b"II*\0" + struct.pack("<IH", 8, len(tags)) + fields + struct.pack("<I", 0) + packed
    assert (read_in(1, file) == RAMP // 256).all()


@pytest.mark.parametrize(
    ("image", "options", "says"),
    [
        (Image.fromarray(RAMP.astype(np.int32)), {}, "range of its gray values is unknown .*mode I"),
        (Image.fromarray(RAMP.astype(np.float32) / 65535), {}, "range of its gray values is unknown .*mode F"),
        (Image.fromarray(RAMP), {"tiffinfo": {262: 0}}, "WhiteIsZero"),
    ],
    ids=["32 bits", "floats", "inverted"],
)
def test_gray_of_an_unknown_range_is_refused_by_name(image, options, says):
    with pytest.raises(DataError, match="^picture: not an image that can be read: .*" + says):
        read_in(1, saved(image, "TIFF", **options))


DECODERS_RAISE = [
    RuntimeError("decoding failed"),
    EOFError(),
    KeyError(3),
    struct.error("short"),
    OverflowError("large"),
]


@pytest.mark.parametrize("error", DECODERS_RAISE, ids=[type(error).__name__ for error in DECODERS_RAISE])
def test_whatever_a_decoder_raises_names_the_file(error, monkeypatch):
    def fails(*_):
        raise error

    file = saved(Image.fromarray(RAMP.astype(np.uint8)), "BMP")
    monkeypatch.setattr(Image.Image, "load", fails)
    with pytest.raises(DataError, match=r"^picture: not an image that can be read: \S"):
        read_in(3, file)


@pytest.mark.skipif(not features.check("avif"), reason="Pillow without AVIF")
def test_a_damaged_avif_is_no_image():
    file = saved(Image.new("RGB", (23, 17), "red"), "AVIF")
    pixels = file.index(b"mdat") + 4
    with pytest.raises(DataError, match=r"^picture: not an image that can be read: "):
        read_in(3, file[:pixels] + bytes(len(file) - pixels))


@pytest.mark.parametrize("channels", [1, 3])
def test_a_palette_with_transparent_entries_is_read_without_a_warning(channels, recwarn):
    palette = Image.fromarray(np.arange(16, dtype=np.uint8).reshape(4, 4) * 16).quantize(16)
    file = saved(palette, "PNG", transparency=bytes([0] * 8 + [255] * 8))
    assert (read_in(channels, file) == read_in(channels, saved(palette, "PNG"))).all()
    assert not recwarn.list


def test_reading_on_several_threads_leaves_the_filters_of_warnings_as_they_are(monkeypatch):
    upright, inside, go_on = ImageOps.exif_transpose, threading.Event(), threading.Event()

    def waits(image):
        inside.set()
        assert go_on.wait(60)
        return upright(image)

    file, before = saved(Image.new("RGB", (4, 4)), "PNG"), list(warnings.filters)
    with ThreadPoolExecutor(2) as pool:
        monkeypatch.setattr(ImageOps, "exif_transpose", waits)
        slow = pool.submit(read_in, 3, file)
        assert inside.wait(60)
        meanwhile = list(warnings.filters)
        monkeypatch.setattr(ImageOps, "exif_transpose", upright)
        pool.submit(read_in, 3, file).result()
        go_on.set()
        slow.result()
    assert meanwhile == warnings.filters == before


def test_damaged_metadata_are_read_without_a_warning_and_a_huge_image_with_one():
    exif = Image.Exif()
    exif[0x010E] = "a long description of this image"
    file = saved(Image.new("RGB", (4, 4)), "JPEG", exif=exif.tobytes()[:-20])
    program = f"""
from PIL import Image
from dragoman.data.image_files import read_image
read_image({file!r}, 3, "a")
print("read", flush=True)
Image.MAX_IMAGE_PIXELS = 10
read_image({file!r}, 3, "a")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "read\n" and done.stderr.count("Warning: ") == 1
    assert "DecompressionBombWarning" in done.stderr


@pytest.mark.parametrize("given", [123, None, [1, 2]])
def test_what_is_no_image_at_all_is_an_error_of_types(given):
    with pytest.raises(TypeError, match=r"^picture: a path, bytes or an image of Pillow is expected, not "):
        read_image(given, 3, "picture")


def test_frames_are_cut_at_the_longest_and_padding_is_no_frame():
    material = FrameMaterial(FrameInput(channels=2), longest=3)
    long, short = np.arange(10.0).reshape(5, 2), np.array([[7, 8]])
    rows = material.rows([long, short], ["a", "b"])
    values, keep = material.collate(rows)
    assert values.shape == (2, 3, 2) and keep.tolist() == [[True] * 3, [True, False, False]]
    np.testing.assert_array_equal(material.restored(rows[0]), long[:3])
    assert material.positions(np.array([len(row) for row in rows])).tolist() == [3, 1]


def test_the_digits_of_scikit_learn_are_at_hand():
    pytest.importorskip("sklearn")
    found = read_arrays(Digits())
    assert len(found) == 1797 and {e.label for e in found} == set("0123456789")
    assert found[0].given.shape == (8, 8) and found[0].given.dtype == np.uint8 and found[0].given.max() == 239


NO_LABEL = {
    "nothing": ([0, None, 1], "no label in 'label'"),
    "no text": (["a", None, "b"], "no label in 'label'"),
    "an empty text": (["a", " ", "b"], "no label in 'label'"),
    "not a number": ([0.0, float("nan"), 1.0], "the label 0.0 in 'label' must be a whole number or a text"),
    "a fraction": ([1.5, 2.0, 1.0], "the label 1.5 in 'label' must be a whole number or a text"),
    "a list": ([[1], [2], [3]], r"the label \[1\] in 'label' must be"),
}


@pytest.mark.parametrize("kind", NO_LABEL)
def test_a_row_of_a_table_without_a_label_is_named(kind, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    arrow = pytest.importorskip("pyarrow")
    labels, says = NO_LABEL[kind]
    parquet.write_table(arrow.table({"image": [[[1, 2], [3, 4]]] * 3, "label": labels}), tmp_path / "null.parquet")
    row = 2 if says.startswith("no") else 1
    with pytest.raises(DataError, match=rf"null\.parquet: row {row}: {says}"):
        read_arrays(ArrayTable(path=str(tmp_path / "null.parquet")))


def test_a_label_that_is_not_a_number_counts_as_none(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    arrow = pytest.importorskip("pyarrow")
    table = arrow.table({"image": [[[1, 2], [3, 4]]] * 2, "label": [float("nan"), 1.0]})
    parquet.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet: row 1: no label in 'label': fill it, or remove the example"):
        read_arrays(ArrayTable(path=str(tmp_path / "a.parquet")))


@pytest.mark.parametrize("labels", [[0, 1], [True, False], ["a", "b"]])
def test_whole_numbers_truth_values_and_texts_are_labels_of_tables_and_arrays_alike(labels, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    arrow = pytest.importorskip("pyarrow")
    parquet.write_table(arrow.table({"image": [[[1, 2], [3, 4]]] * 2, "label": labels}), tmp_path / "a.parquet")
    np.savez(tmp_path / "a.npz", x=np.ones((2, 2, 2), np.uint8), y=np.array(labels))
    for source in (ArrayTable(path=str(tmp_path / "a.parquet")), Arrays(path=str(tmp_path / "a.npz"))):
        assert [example.label for example in read_arrays(source)] == [str(label) for label in labels]


def not_arrays(folder):
    np.save(folder / "objects.npy", np.array([[[None]]]), allow_pickle=True)
    (folder / "text.npy").write_bytes(b"hello there")
    np.save(folder / "whole.npy", np.zeros((2, 3, 4)))
    (folder / "cut.npy").write_bytes((folder / "whole.npy").read_bytes()[:-9])
    (folder / "zip.npy").write_bytes(b"PK\3\4 and so on")
    return [folder / f"{name}.npy" for name in ("objects", "text", "cut", "zip")]


def test_what_is_no_file_of_numbers_is_told_without_advice_on_how_to_call_numpy(tmp_path):
    for path in not_arrays(tmp_path):
        with pytest.raises(DataError, match=rf"{path.name}: not a \.npy file of plain numbers, or damaged") as error:
            read_array(path)
        assert "pickle" not in str(error.value)
        path.rename(path := path.with_suffix(".npz"))
        with pytest.raises(DataError, match=rf"{path.name}: not a \.npz file of plain arrays") as error:
            read_arrays(Arrays(path=str(path)))
        assert "pickle" not in str(error.value) and "protocol" not in str(error.value)


# ---- changed at random ----------------------------------------------------------------------------


def test_every_image_is_moved_by_its_own_few_pixels():
    images = torch.arange(36.0).view(1, 1, 6, 6).repeat(200, 1, 1, 1)
    moved = ShiftAndFlip(pixels=1).of(images)
    inner = {tuple(image[0, 1:-1, 1:-1].flatten().tolist()) for image in moved}
    wide = torch.nn.functional.pad(images[:1], (1, 1, 1, 1), mode="replicate")[0, 0]
    crops = {tuple(wide[r : r + 6, c : c + 6][1:-1, 1:-1].flatten().tolist()) for r in range(3) for c in range(3)}
    assert inner == crops


def test_half_of_the_images_are_mirrored_and_the_draws_follow_the_seed():
    images = torch.randn(400, 2, 4, 4)
    changed = ShiftAndFlip(pixels=0, flip=True).of(images)
    mirrored = [torch.equal(new, old.flip(2)) for new, old in zip(changed, images, strict=True)]
    kept = [torch.equal(new, old) for new, old in zip(changed, images, strict=True)]
    assert all(a or b for a, b in zip(mirrored, kept, strict=True)) and 150 < sum(mirrored) < 250
    torch.manual_seed(5)
    one = ShiftAndFlip(pixels=1, flip=True).of(images)
    torch.manual_seed(5)
    assert torch.equal(one, ShiftAndFlip(pixels=1, flip=True).of(images))


# ---- the command line -----------------------------------------------------------------------------


def test_classify_takes_an_image_a_folder_and_an_array(run, folder, tmp_path, capsys):
    files = sorted(folder.rglob("*.png"))
    assert main(["classify", str(run), str(files[0])]) == 0
    label, probability = capsys.readouterr().out.strip().split("\t")
    assert label == files[0].parent.name[-1] and 0 < float(probability) <= 1
    assert main(["classify", str(run), str(folder), "--format", "json"]) == 0
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [record["text"] for record in records] == [str(file) for file in files]
    np.save(tmp_path / "a.npy", np.stack([np.array(Image.open(file)) for file in files]))
    assert main(["classify", str(run), str(tmp_path / "a.npy"), "--format", "json"]) == 0
    again = [json.loads(line)["probabilities"] for line in capsys.readouterr().out.splitlines()]
    assert again == [record["probabilities"] for record in records]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("broken.png", b"\x89PNG\r\n\x1a\nnot really", r"broken\.png: not an image that can be read"),
        ("large.png", png(np.zeros((9, 8), np.uint8)), r"large\.png: an image of 9 x 8 x 1 .* reads 8 x 8 x 1"),
        ("missing.png", None, r"missing\.png: no such file"),
        ("a.npz", b"PK", r"a\.npz: this model reads images: name image files, a folder .* in a \.npy file"),
        ("a.parquet", None, r"a\.parquet: this model reads images: name image files"),
        ("broken.npy", b"what", r"broken\.npy: not a \.npy file"),
    ],
)
def test_an_image_that_cannot_be_read_is_one_line_and_exit_code_2(run, name, content, says, tmp_path, capsys):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    assert main(["classify", str(run), str(tmp_path / name)]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    with pytest.raises(DataError, match=says):
        raise DataError(err)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "CMYK", "I;16"])
def test_an_image_of_pillow_is_read_like_its_file(mode):
    ramp = Image.fromarray(RAMP)
    image = ramp if mode == "I;16" else Image.fromarray((RAMP >> 8).astype(np.uint8)).convert(mode)
    for channels in (1, 3):
        assert (read_in(channels, image) == read_in(channels, saved(image, "TIFF"))).all()


def test_an_image_of_pillow_is_turned_upright_like_its_file():
    exif = Image.Exif()
    exif[0x0112] = 6
    file = saved(Image.fromarray((RAMP >> 8).astype(np.uint8)), "PNG", exif=exif)
    with Image.open(io.BytesIO(file)) as image:
        assert (read_in(1, image) == read_in(1, file)).all()


def test_classify_takes_images_of_pillow_and_paths_as_texts(run, folder):
    path = next(folder.rglob("*.png"))
    given = [path, str(path), path.read_bytes(), Image.open(path)]
    assert len({classified.probability for classified in Classifier.load(run).classify(given)}) == 1


@pytest.mark.parametrize("given", [torch.zeros(1, 8, 8), None, 3, [[0, 1], [2, 3]], io.BytesIO()], ids=type)
def test_what_is_no_image_is_refused_in_one_line(given, run):
    with pytest.raises(DataError, match=r"^example 1: an image is a path, .* and this is [\w.]+$"):
        Classifier.load(run).classify([given])


ADVICE: dict[str, tuple[Any, dict[str, Any], str]] = {
    "a file": (png(np.zeros((6, 8), np.uint8)), {}, "resize it, .* data.other_sizes=resize$"),
    "an array": (np.zeros((6, 8), np.uint8), {"resize": True}, "resize it, .* another size in model.inputs$"),
    "floats": (np.zeros((6, 8)), {"resize": True}, "resize it, .* another size in model.inputs$"),
    "other channels": (np.zeros((4, 4, 3), np.uint8), {"resize": True}, "change the array, .* other model.inputs$"),
    "many images": (np.zeros((2, 4, 4, 1), np.uint8), {}, "change the array, .* other model.inputs$"),
    "a preparation to another size": (
        png(np.zeros((6, 8), np.uint8)), {"resize": True, "preprocessing": ImagePreprocessing(size=OwnSize())},
        "model.inputs.preprocessing must make images of the size in model.inputs$",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", ADVICE)
def test_advice_about_an_image_of_another_shape_is_what_helps(case):
    given, options, says = ADVICE[case]
    cfg = PatchInput(size=(4, 4), patch=2, channels=1, preprocessing=options.get("preprocessing"))
    with pytest.raises(DataError, match=f"^picture: .* and the model reads 4 x 4 x 1: {says}"):
        ImageMaterial(cfg, resize=options.get("resize", False)).rows([given], ["picture"])


def test_images_of_other_sizes_are_refused_or_resized_as_the_run_says(folder, tmp_path):
    odd = folder / "quarter 0" / "odd.png"
    odd.write_bytes(png(np.zeros((12, 10), np.uint8)))
    held = {"test": 5, "valid": 5, "near": None}
    data = {"train": [{"kind": "image_folder", "path": str(folder)}], "hold_out": held}
    with pytest.raises(DataError, match=r"odd\.png: an image of 12 x 10 x 1 .* data\.other_sizes=resize"):
        list(start(run_config(None, data=data), tmp_path / "refused").events())
    assert not (tmp_path / "refused").exists()
    list(start(run_config(None, steps=1, data=data | {"other_sizes": "resize"}), tmp_path / "run").events())
    assert Classifier.load(tmp_path / "run").classify([odd], places=[str(odd)])[0].label


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"x": np.zeros((3, 8, 8))}, r"a\.npz: no array 'y' among 'x'"),
        ({"x": np.zeros((3, 8, 8)), "y": np.zeros(2, int)}, r"a\.npz: 'y' must hold a whole number or a text for each"),
        ({"x": np.array([None, None]), "y": np.zeros(2, int)}, r"a\.npz: not a \.npz file of plain arrays"),
    ],
    ids=["no labels", "too few labels", "objects"],
)
def test_arrays_that_do_not_fit_are_named(arrays, says, tmp_path):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError, match=says):
        read_arrays(Arrays(path=str(tmp_path / "a.npz")))


@pytest.mark.parametrize(
    ("lengths", "says"),
    [
        ([2, 3], r"'n' must hold a whole number of frames for each of the 3 examples; it is int64 of shape \(2,\)"),
        ([[2], [3], [4]], r"'n' must hold .* shape \(3, 1\)"),
        ([2.0, 3.0, 4.0], r"'n' must hold .* it is float64"),
        ([True, True, True], r"'n' must hold .* it is bool"),
        ([1, -1, 9], r"example 2: 'n' must be from 1 to 4, .* it is -1"),
        ([1, 0, 4], r"example 2: .* it is 0"),
        ([1, 4, 5], r"example 3: .* it is 5"),
    ],
)
def test_lengths_that_are_no_numbers_of_frames_are_refused(lengths, says, tmp_path):
    np.savez(tmp_path / "a.npz", x=np.zeros((3, 4, 2)), y=np.arange(3), n=np.array(lengths))
    with pytest.raises(DataError, match=r"a\.npz: " + says):
        read_arrays(Arrays(path=str(tmp_path / "a.npz"), lengths="n"))


def test_frames_are_read_up_to_their_lengths(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.zeros((3, 4, 2)), y=np.arange(3), n=np.array([1, 4, 2], np.uint8))
    examples = read_arrays(Arrays(path=str(tmp_path / "a.npz"), lengths="n"))
    assert [len(example.given) for example in examples] == [1, 4, 2]


def test_a_label_of_an_image_that_training_never_saw_is_refused_with_its_place(archive, tmp_path):
    np.savez(tmp_path / "test.npz", x=np.zeros((2, 8, 8), np.uint8), y=[0, 9])
    data = {"test": {"kind": "arrays", "path": str(tmp_path / "test.npz")}}
    says = r"test\.npz: example 2 has the label '9', which training never saw: it knows 0, 1, 2, 3"
    with pytest.raises(DataError, match=says):
        list(start(run_config(archive, data=data), tmp_path / "run").events())


def test_a_folder_without_images_is_named(tmp_path):
    with pytest.raises(DataError, match="no labelled image or array in it"):
        read_arrays(ImageFolder(path=str(tmp_path)))
    with pytest.raises(DataError, match="no such folder"):
        read_arrays(ImageFolder(path=str(tmp_path / "nowhere")))


def test_texts_are_not_read_by_patches_and_only_images_are_moved(archive):
    with pytest.raises(ConfigError, match=r"model\.inputs: labelled_texts are read by inputs of the kind token_input"):
        data = {"kind": "labelled_texts", "train": [{"kind": "label_first", "path": "a.txt"}]}
        start(config("classification", data, {"inputs": PATCHES, "head": HEAD}), "nowhere")
    with pytest.raises(ConfigError, match=r"task\.augment: changes images, and model\.inputs reads none"):
        task = {"kind": "classification", "augment": "shift_and_flip"}
        data = {"kind": "labelled_arrays", "train": [{"kind": "arrays", "path": str(archive)}]}
        start(config(task, data, {"inputs": {"kind": "frame_input", "channels": 2}, "head": HEAD}), "nowhere")
