"""Families that read images: vectors and classes of image files are those of their own library."""

import json
import shutil
from pathlib import Path
from typing import Any

import foreign
import numpy as np
import pytest
import torch

from dragoman.cli import main
from dragoman.decode.readers.classifier import Classifier
from dragoman.decode.readers.embedder import Embedder
from dragoman.interchange.importing import import_checkpoint

transformers = pytest.importorskip("transformers")
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
Image = pytest.importorskip("PIL.Image")

TOLERANCE = 1e-5
CROP = {
    "image_processor_type": "BitImageProcessor",
    "size": {"shortest_edge": 20},
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    draw = np.random.default_rng(1)
    for name, shape in (("wide", (21, 33, 3)), ("tall", (40, 22, 3)), ("gray", (30, 30))):
        Image.fromarray(draw.integers(0, 256, shape, dtype=np.uint8)).save(folder / f"{name}.png")
    return sorted(folder.iterdir())


@pytest.fixture(scope="module")
def dino(tmp_path_factory):
    """DINOv2 as published: trained on other images than those that its processor makes, with a mask token."""
    folder = tmp_path_factory.mktemp("dinov2")
    torch.manual_seed(0)
    model = transformers.Dinov2Model(transformers.Dinov2Config(**foreign.DINO | {"use_mask_token": True})).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.15)
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(CROP | {"crop_size": {"height": 18, "width": 18}}))
    return folder


@torch.inference_mode()
def their_vectors(folder: Path, photos: list[Path]) -> torch.Tensor:
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    return torch.cat([model(**processor(str(path), return_tensors="pt")).pooler_output for path in photos])


def test_vectors_of_image_files_are_those_of_dinov2_with_resampled_positions(dino, photos, tmp_path, capsys):
    assert main(["import", str(dino), "-o", str(tmp_path / "run")]) == 0
    said = capsys.readouterr().out
    assert "not used: the vector of hidden patches" in said and "dragoman embed" in said
    got = Embedder.load(tmp_path / "run").embed(photos)
    torch.testing.assert_close(got, their_vectors(dino, photos), rtol=0, atol=TOLERANCE)
    assert main(["embed", str(tmp_path / "run"), str(photos[0])]) == 0
    assert len(json.loads(capsys.readouterr().out)["vector"]) == 18


def test_classes_of_image_files_are_those_of_dinov2(photos, tmp_path):
    foreign.make_folder("DINOv2", 0, tmp_path / "folder")
    settings = CROP | {"crop_size": {"height": 12, "width": 12}}
    (tmp_path / "folder" / "preprocessor_config.json").write_text(json.dumps(settings))
    import_checkpoint(tmp_path / "folder", tmp_path / "run")
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path / "folder")
    model = transformers.AutoModelForImageClassification.from_pretrained(tmp_path / "folder").eval()
    found = Classifier.load(tmp_path / "run").classify(photos, places=[path.name for path in photos])
    for path, classified in zip(photos, found, strict=True):
        with torch.inference_mode():
            wanted = model(**processor(str(path), return_tensors="pt")).logits.softmax(dim=-1)[0]
        assert classified.label == model.config.id2label[int(wanted.argmax())]
        assert list(classified.probabilities.values()) == pytest.approx(wanted.tolist(), abs=TOLERANCE)


@pytest.fixture(scope="module")
def siglip(tmp_path_factory):
    """The whole of SigLIP, as published: config.json leaves out what is usual."""
    folder = tmp_path_factory.mktemp("siglip")
    torch.manual_seed(0)
    texts = {"hidden_size": 12, "num_hidden_layers": 1, "num_attention_heads": 3, "intermediate_size": 20,
             "vocab_size": 31, "max_position_embeddings": 8, "projection_size": 24}  # fmt: skip
    images = foreign.VIT | {"hidden_size": 24, "num_attention_heads": 12}
    model = transformers.SiglipModel(transformers.SiglipConfig(text_config=texts, vision_config=images)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.15)
    model.save_pretrained(folder)
    path = folder / "config.json"
    content = json.loads(path.read_text())
    for name in ("num_attention_heads", "hidden_act", "layer_norm_eps", "num_channels", "vision_use_head"):
        del content["vision_config"][name]
    path.write_text(json.dumps(content))
    settings = {"image_processor_type": "SiglipImageProcessor", "size": {"height": 12, "width": 12}, "resample": 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return folder


def test_vectors_of_image_files_are_those_of_siglip(siglip, photos, tmp_path, capsys):
    assert main(["import", str(siglip), "-o", str(tmp_path / "run"), "--as", "SiglipVisionModel"]) == 0
    said = capsys.readouterr().out
    assert "note: config.json: text_config: what reads texts is left out" in said and "what reads texts (" in said
    processor = transformers.AutoImageProcessor.from_pretrained(siglip)
    model = transformers.AutoModel.from_pretrained(siglip).eval()
    with torch.inference_mode():
        images = [processor(str(path), return_tensors="pt").pixel_values for path in photos]
        wanted = torch.cat([model.vision_model(pixel_values=image).pooler_output for image in images])
    got = Embedder.load(tmp_path / "run").embed(photos)
    torch.testing.assert_close(got, wanted, rtol=0, atol=TOLERANCE)
    assert main(["export", str(tmp_path / "run"), "--to", "huggingface", "-o", str(tmp_path / "alone")]) == 0
    alone = transformers.SiglipVisionModel.from_pretrained(tmp_path / "alone").eval()
    with torch.inference_mode():
        again = torch.cat([alone(pixel_values=image).pooler_output for image in images])
    torch.testing.assert_close(again, wanted, rtol=0, atol=TOLERANCE)


MISTAKES: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "images that patches do not fill": (
        {}, {"crop_size": 17}, "size: images of 17 x 17 pixels, and the model of config.json reads 12 x 12",
    ),
    "images of many sizes": ({}, {"do_center_crop": False}, "size: images of many sizes"),
    "a size of three sides": ({"image_size": [12, 12, 12]}, {}, "image_size: expected a whole number above 0, got [12"),
    "a size without sides": ({"image_size": []}, {}, "image_size: expected a whole number above 0, got []"),
    "a patch that is none": ({"patch_size": 0}, {}, "patch_size: expected a whole number above 0, got 0"),
    "a layer too many": ({"num_hidden_layers": 3}, {}, "no tensor dinov2.encoder.layer.2"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_a_folder_of_an_image_model_is_one_line(mistake, dino, tmp_path, capsys):
    model, images, message = MISTAKES[mistake]
    shutil.copytree(dino, tmp_path / "folder")
    for name, changes in (("config.json", model), ("preprocessor_config.json", images)):
        path = tmp_path / "folder" / name
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    assert main(["import", str(tmp_path / "folder"), "-o", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and message in said
    assert not (tmp_path / "run").exists()
