"""Image files become the numbers that `AutoImageProcessor` makes of them, as preprocessor_config.json says."""

import json
import shutil
from pathlib import Path
from typing import Any, get_args

import foreign
import numpy as np
import pytest
import torch

from dragoman.cli import main
from dragoman.config import from_dict
from dragoman.data.material import ImageMaterial
from dragoman.errors import ConfigError
from dragoman.interchange.exporting import export_huggingface
from dragoman.interchange.image_processor import FILE, read_preprocessing
from dragoman.interchange.importing import import_checkpoint, import_notes
from dragoman.model.families import ModelConfig
from dragoman.model.inputs import PatchInput
from dragoman.model.preprocessing import ExactSize, ImagePreprocessing, ResamplingFilter, ShortestEdge

transformers = pytest.importorskip("transformers")
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
Image = pytest.importorskip("PIL.Image")

SIDE = 12
"""Pixels of a side of the images that the model of ``foreign`` reads."""


def pixels(height: int, width: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(height * width).integers(0, 256, (height, width, channels), dtype=np.uint8)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Image files of every kind that a person may have, by name."""
    folder = tmp_path_factory.mktemp("files")
    colours = Image.fromarray(pixels(17, 23))
    mask = Image.fromarray(pixels(17, 23, 1)[:, :, 0])
    through = colours.copy()
    through.putalpha(mask)
    palette = colours.quantize(16)
    made = {
        "wide.png": colours,
        "tall.png": Image.fromarray(pixels(40, 9)),
        "tiny.png": Image.fromarray(pixels(3, 5)),
        "as large.png": Image.fromarray(pixels(SIDE, SIDE)),
        "gray.png": mask,
        "black or white.png": mask.convert("1"),
        "palette.gif": palette,
        "palette.png": palette,
        "transparent.png": through,
        "transparent gray.png": through.convert("LA"),
        "print.jpg": colours.convert("CMYK"),
        "16 bits.png": Image.fromarray(pixels(17, 23, 1)[:, :, 0].astype(np.uint16) * 257),
        "photo.webp": colours,
    }
    for name, image in made.items():
        image.save(folder / name)
    palette.save(folder / "palette, transparent.png", transparency=3)
    for turn in range(2, 9):
        exif = Image.Exif()
        exif[0x0112] = turn
        colours.save(folder / f"turned {turn}.jpg", exif=exif, quality=95)
    return sorted(folder.iterdir())


def in_8_bits(path: Path) -> str:
    """Return the file that holds the upper 8 bits of each pixel: theirs makes gray of 16 bits white above 255."""
    return str(path.with_name("gray.png") if path.name == "16 bits.png" else path)


PROCESSORS: dict[str, tuple[str, dict[str, Any]]] = {
    "vit": ("ViTImageProcessor", {"size": {"height": SIDE, "width": SIDE}}),
    "vit, older": ("ViTFeatureExtractor", {"size": SIDE, "resample": 3}),
    "crop": ("BitImageProcessor", {"size": {"shortest_edge": 16}, "crop_size": {"height": SIDE, "width": SIDE}}),
    "crop, larger than the image": ("BitImageProcessor", {"size": {"shortest_edge": 7}, "crop_size": SIDE}),
    "crop alone": ("CLIPImageProcessor", {"do_resize": False, "crop_size": SIDE}),
    "siglip": ("SiglipImageProcessor", {"size": {"height": SIDE, "width": SIDE}, "resample": 1}),
    "own numbers": (
        "ViTImageProcessor",
        {"size": {"height": SIDE, "width": SIDE}, "image_mean": [0.1, 0.2, 0.3], "image_std": [0.9, 0.5, 2.0],
         "rescale_factor": 0.01, "resample": 0},
    ),
    "pixels as they are": (
        "ViTImageProcessor", {"size": {"height": SIDE, "width": SIDE}, "do_rescale": False, "resample": 4},
    ),
    "not normalised": (
        "ViTImageProcessor", {"size": {"height": SIDE, "width": SIDE}, "do_normalize": False, "resample": 5},
    ),
}  # fmt: skip


def write(folder: Path, kind: str, settings: dict[str, Any]) -> None:
    name = "feature_extractor_type" if kind.endswith("Extractor") else "image_processor_type"
    (folder / FILE).write_text(json.dumps({name: kind} | settings))


@pytest.fixture(scope="module")
def vit(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vit")
    foreign.make_folder("ViT", 0, folder)
    return folder


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # theirs leaves a GIF open
@pytest.mark.parametrize("name", PROCESSORS)
def test_files_of_every_kind_are_prepared_as_their_processor_prepares_them(name, files, tmp_path):
    write(tmp_path, *PROCESSORS[name])
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "vit"}))
    theirs = transformers.AutoImageProcessor.from_pretrained(tmp_path)
    found = read_preprocessing(tmp_path, "vit")
    material = ImageMaterial(PatchInput(size=(SIDE, SIDE), patch=3, preprocessing=found))
    for path in files:
        wanted = theirs(in_8_bits(path), return_tensors="pt").pixel_values
        got = material.collate(material.rows([path], [path.name]))
        torch.testing.assert_close(got, wanted.float(), rtol=2e-6, atol=2e-6, msg=lambda m, p=path: f"{p.name}: {m}")


def test_arrays_of_pixels_are_prepared_like_files_and_floats_stay():
    cfg = PatchInput(size=(4, 4), patch=2, preprocessing=ImagePreprocessing(size=ExactSize(height=4, width=4)))
    material = ImageMaterial(cfg)
    given = pixels(9, 6)
    theirs = np.array(Image.fromarray(given).resize((4, 4), resample=Image.Resampling.BILINEAR))
    (row,) = material.rows([given], ["one"])
    assert (row.reshape(3, 4, 4) == theirs.transpose(2, 0, 1)).all()
    assert float(material.collate([row]).max()) <= 1.0
    exact = np.linspace(-3, 3, 48, dtype=np.float32).reshape(4, 4, 3)
    assert np.array_equal(material.restored(material.rows([exact], ["one"])[0]), exact)


@pytest.mark.parametrize(
    ("name", "numbers", "channels"), [("mean", 3, 1), ("std", 3, 1), ("mean", 2, 3), ("std", 0, 3)]
)
def test_as_many_means_and_spreads_as_channels_or_one(name, numbers, channels):
    def build(count):
        cfg = ImagePreprocessing(size=ExactSize(height=4, width=4), **{name: (0.5,) * count})
        return PatchInput(size=(4, 4), patch=2, channels=channels, preprocessing=cfg).build(8)

    for right in (1, channels):
        build(right)
    with pytest.raises(ConfigError, match=rf"^preprocessing\.{name}: .* it holds {numbers}$"):
        build(numbers)


def test_a_folder_with_more_means_than_channels_is_refused_in_one_line(vit, tmp_path, capsys):
    shutil.copytree(vit, tmp_path / "folder")
    kind, settings = PROCESSORS["vit"]
    write(tmp_path / "folder", kind, settings | {"image_mean": [0.5, 0.5]})
    assert main(["import", str(tmp_path / "folder"), "-o", str(tmp_path / "run")]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "preprocessing.mean" in err, err


def test_what_a_store_holds_is_not_prepared_again():
    cfg = ImagePreprocessing(size=ShortestEdge(pixels=6), crop=(4, 4))
    material = ImageMaterial(PatchInput(size=(4, 4), patch=2, preprocessing=cfg))
    (stored,) = material.rows([pixels(9, 7)], ["one"])
    again = material.rows([material.restored(stored)], ["one"])
    assert torch.equal(material.collate(again), material.collate([stored]))


def prepared(given: np.ndarray, kind: ResamplingFilter = "bilinear") -> np.ndarray:
    """Return an array as a model of 4 x 4 pixels reads it, with channels first."""
    preprocessing = ImagePreprocessing(size=ExactSize(height=4, width=4), filter=kind)
    cfg = PatchInput(size=(4, 4), patch=2, channels=given.shape[2], preprocessing=preprocessing)
    return ImageMaterial(cfg).rows([given], ["an array"])[0].reshape(-1, 4, 4)


@pytest.mark.parametrize("kind", get_args(ResamplingFilter))
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5])
def test_every_channel_is_resized_by_itself(channels, kind):
    given = pixels(9, 6, channels)
    alone = [prepared(given[:, :, i : i + 1], kind) for i in range(channels)]
    assert np.array_equal(prepared(given, kind), np.concatenate(alone))


def test_the_last_of_four_channels_does_not_hide_the_others():
    given = np.full((8, 8, 4), 200, np.uint8)
    given[:4, :, 3] = 0
    assert (prepared(given)[:3] == 200).all()


def test_five_channels_of_the_right_size_stay_as_they_are():
    given = pixels(4, 4, 5)
    assert np.array_equal(prepared(given), given.transpose(2, 0, 1))


def test_a_file_is_classified_as_their_pipeline_classifies_it(vit, files, tmp_path, capsys):
    shutil.copytree(vit, tmp_path / "folder")
    write(tmp_path / "folder", *PROCESSORS["crop"])
    assert main(["import", str(tmp_path / "folder"), "-o", str(tmp_path / "run")]) == 0
    assert "preprocessor_config.json" not in capsys.readouterr().out
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path / "folder")
    model = transformers.AutoModelForImageClassification.from_pretrained(tmp_path / "folder").eval()
    for path in files[:4]:
        assert main(["classify", str(tmp_path / "run"), str(path)]) == 0
        label, probability = capsys.readouterr().out.strip().split("\t")[-2:]
        with torch.inference_mode():
            wanted = model(**processor(in_8_bits(path), return_tensors="pt")).logits.softmax(dim=-1)[0]
        assert label == model.config.id2label[int(wanted.argmax())]
        assert float(probability) == pytest.approx(float(wanted.max()), abs=2e-3)


def test_a_folder_without_settings_of_images_says_what_is_assumed(vit, tmp_path):
    run = import_checkpoint(vit, tmp_path / "run")
    assert any(note.startswith("preprocessor_config.json: missing") for note in import_notes(run))


MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "another class": ({"image_processor_type": "BeitImageProcessor"}, "image_processor_type: no 'BeitImageProcessor'"),
    "another size": ({"size": 9}, "size: images of 9 x 9 pixels, and the model of config.json reads 12 x 12"),
    "an edge alone": ({"size": {"shortest_edge": SIDE}}, "size: images of many sizes"),
    "a longest edge": ({"size": {"longest_edge": SIDE}}, "size: expected height and width, or shortest_edge, got"),
    "two edges": ({"size": {"shortest_edge": SIDE, "longest_edge": 20}}, "size: expected height and width"),
    "a size that is none": ({"size": "12"}, "size: expected height and width, or shortest_edge, got '12'"),
    "a filter that is none": ({"resample": 7}, "resample: expected the number of a filter, 0 to 5, got 7"),
    "a spread of 0": ({"image_std": [0.5, 0, 0.5]}, "image_std: expected a number for each channel, got [0.5, 0, 0.5]"),
    "a mean that is none": ({"image_mean": ["a"]}, "image_mean: expected a number for each channel, got ['a']"),
    "a factor that is none": ({"rescale_factor": "1/255"}, "rescale_factor: expected a number above 0, got '1/255'"),
    "a crop that is none": ({"do_center_crop": True, "crop_size": {"height": 12}}, "crop_size: expected height and"),
    "padding": ({"do_pad": True}, "do_pad: True is not supported here"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_setting_of_images_that_cannot_be_obeyed_is_refused_with_its_name(mistake, vit, tmp_path):
    changes, message = MISTAKES[mistake]
    shutil.copytree(vit, tmp_path / "folder")
    kind, settings = PROCESSORS["vit"]
    write(tmp_path / "folder", kind, settings | changes)
    with pytest.raises(ConfigError) as raised:
        import_checkpoint(tmp_path / "folder", tmp_path / "run")
    assert message in str(raised.value) and FILE in str(raised.value)
    assert not (tmp_path / "run").exists()


def test_an_export_written_anew_says_how_images_are_prepared(vit, files, tmp_path, monkeypatch):
    from dragoman.interchange import exporting

    shutil.copytree(vit, tmp_path / "folder")
    write(tmp_path / "folder", *PROCESSORS["crop"])
    run = import_checkpoint(tmp_path / "folder", tmp_path / "run")
    monkeypatch.setattr(exporting, "_is_as_it_came", lambda *_: False)
    export_huggingface(run.path, tmp_path / "again")
    inputs = from_dict(ModelConfig, run.config["model"]).inputs
    assert read_preprocessing(tmp_path / "again", "vit") == inputs.preprocessing
    theirs, again = (transformers.AutoImageProcessor.from_pretrained(tmp_path / name) for name in ("folder", "again"))
    for path in files[:3]:
        assert np.allclose(theirs(str(path)).pixel_values, again(str(path)).pixel_values, atol=1e-6)
