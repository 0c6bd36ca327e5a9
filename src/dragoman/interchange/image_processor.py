"""A folder's preprocessor_config.json as our preparation of images, and back."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from dragoman.errors import ConfigError
from dragoman.interchange.family import Family
from dragoman.json_files import read_json, write_json
from dragoman.model.inputs import PatchInput
from dragoman.model.positions.grid import LearnedGrid
from dragoman.model.preprocessing import (
    ExactSize,
    ImagePreprocessing,
    ImageSize,
    OwnSize,
    ResamplingFilter,
    ShortestEdge,
)

FILE = "preprocessor_config.json"
_HALF = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
_IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
_CLIP = {"image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711]}
_ALL: dict[str, Any] = {"do_resize": True, "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True}
_CROPS = {
    "size": {"shortest_edge": 224},
    "crop_size": 224,
    "do_center_crop": True,
    "resample": 3,
    "do_convert_rgb": True,
}
_KINDS: dict[str, dict[str, Any]] = {
    "ViT": _ALL | _HALF | {"size": 224, "resample": 2},
    "Siglip": _ALL | _HALF | {"size": {"height": 224, "width": 224}, "resample": 3, "do_convert_rgb": True},
    "Bit": _ALL | _CLIP | _CROPS,
    "CLIP": _ALL | _CLIP | _CROPS,
    "DeiT": _ALL | _IMAGENET | {"size": 256, "crop_size": 224, "do_center_crop": True, "resample": 3},
}
"""Values of missing fields, by the name of the class without its ending."""
_BY_MODEL = {"vit": "ViT", "siglip": "Siglip", "siglip_vision_model": "Siglip", "dinov2": "Bit", "deit": "DeiT"}
_EDGE_ALONE = ("Siglip", "Bit", "CLIP")
"""Classes for which a single number is the shortest edge; for the others it is both sides."""
_READ = frozenset({
    "do_resize", "size", "resample", "do_center_crop", "crop_size", "do_rescale", "rescale_factor", "do_normalize",
    "image_mean", "image_std", "image_processor_type", "feature_extractor_type", "processor_class",
    "do_convert_rgb", "data_format", "input_data_format", "device", "disable_grouping", "return_tensors",
    "do_sample_frames", "_valid_processor_keys", "default_to_square", "image_seq_length",
})  # fmt: skip
"""Fields that are obeyed, and those that change nothing for single image files."""


def read_preprocessing(folder: Path, model_type: str) -> ImagePreprocessing | None:
    """Return the preparation of images that a folder names; None where it names none.

    Like ``AutoImageProcessor`` with the path of an image, turn files upright and convert them to colours.

    Raises:
        ConfigError: a setting that cannot be obeyed; the message names the file and the field.
    """
    path = folder / FILE
    content = read_json(path)
    if not content:
        return None
    named = str(content.get("image_processor_type") or content.get("feature_extractor_type") or "")
    kind = next((kind for kind in _KINDS if named.startswith(kind)), _BY_MODEL.get(model_type, ""))
    if kind not in _KINDS or (named and not named.startswith(kind)):
        raise ConfigError(f"{path}: image_processor_type: no {named!r} here; known: {', '.join(_KINDS)}")
    given = _KINDS[kind] | {name: value for name, value in content.items() if value is not None}
    if unread := sorted(name for name in given if given[name] and name not in _READ):
        raise ConfigError(f"{path}: {unread[0]}: {given[unread[0]]!r} is not supported here")
    mean, std = ((0.0,), (1.0,))
    if given["do_normalize"]:
        mean, std = (_numbers(given[f"image_{name}"], path, f"image_{name}") for name in ("mean", "std"))
    factor = given["rescale_factor"]
    if type(factor) not in (int, float) or factor <= 0:
        raise ConfigError(f"{path}: rescale_factor: expected a number above 0, got {factor!r}")
    return ImagePreprocessing(
        size=_size(given, kind, path),
        white=bool(given.get("do_convert_rgb")),
        filter=_filter(given["resample"], path),
        crop=_crop(given, path),
        scale=float(factor) if given["do_rescale"] else None,
        mean=mean,
        std=std,
    )


def _numbers(value: Any, path: Path, name: str) -> tuple[float, ...]:
    values = value if isinstance(value, list) else [value]
    if not values or any(type(n) not in (int, float) for n in values) or (name == "image_std" and min(values) <= 0):
        raise ConfigError(f"{path}: {name}: expected a number for each channel, got {value!r}")
    return tuple(map(float, values))


def _filter(number: Any, path: Path) -> ResamplingFilter:
    known = get_args(ResamplingFilter)
    if type(number) is not int or not 0 <= number < len(known):
        raise ConfigError(f"{path}: resample: expected the number of a filter, 0 to {len(known) - 1}, got {number!r}")
    return known[number]


def _size(given: Mapping[str, Any], kind: str, path: Path) -> ImageSize:
    if not given["do_resize"]:
        return OwnSize()
    match given["size"]:
        case int(side) if side > 0 and not isinstance(side, bool):
            return ShortestEdge(pixels=side) if kind in _EDGE_ALONE else ExactSize(height=side, width=side)
        case {"height": int(height), "width": int(width)} if min(height, width) > 0:
            return ExactSize(height=height, width=width)
        case {"shortest_edge": int(side), **rest} if side > 0 and not any(rest.values()):
            return ShortestEdge(pixels=side)
    raise ConfigError(f"{path}: size: expected height and width, or shortest_edge, got {given['size']!r}")


def _crop(given: Mapping[str, Any], path: Path) -> tuple[int, int] | None:
    if not given.get("do_center_crop"):
        return None
    match given.get("crop_size"):
        case int(side) if side > 0 and not isinstance(side, bool):
            return side, side
        case {"height": int(height), "width": int(width)} if min(height, width) > 0:
            return height, width
    raise ConfigError(f"{path}: crop_size: expected height and width, got {given.get('crop_size')!r}")


def with_preprocessing(inputs: PatchInput, folder: Path, family: Family, notes: list[str]) -> PatchInput:
    """Return the inputs of a model with the preparation of images that its folder names.

    A model whose family resamples positions reads images of the size that they are prepared to.

    Raises:
        ConfigError: a setting that cannot be obeyed, or images that would not have the size that the model reads.
    """
    found = read_preprocessing(folder, family.model_type)
    if found is None:
        notes.append(f"{FILE}: missing: images must have the size of the model, and pixels become -1 to 1")
        return inputs
    made, patch = output_size(found), inputs.patch
    if made != inputs.size and made is not None and family.resamples and not any(side % patch for side in made):
        stored = (inputs.size[0] // patch, inputs.size[1] // patch)
        return dataclasses.replace(inputs, size=made, position=LearnedGrid(stored=stored), preprocessing=found)
    if made != inputs.size:
        got = "of many sizes" if made is None else f"of {made[0]} x {made[1]} pixels"
        raise ConfigError(
            f"{folder / FILE}: size: images {got}, and the model of config.json reads "
            f"{inputs.size[0]} x {inputs.size[1]}"
        )
    return dataclasses.replace(inputs, preprocessing=found)


def output_size(cfg: ImagePreprocessing) -> tuple[int, int] | None:
    """Return the height and width of every prepared image; None where they depend on the file."""
    if cfg.crop is not None:
        return cfg.crop
    return (cfg.size.height, cfg.size.width) if isinstance(cfg.size, ExactSize) else None


def write_preprocessing(folder: Path, inputs: PatchInput) -> None:
    """Write the preparation of images for a model that was trained here."""
    H, W = inputs.size
    half = (0.5,)
    cfg = inputs.preprocessing or ImagePreprocessing(size=ExactSize(height=H, width=W), mean=half, std=half)
    size: dict[str, Any] = {"do_resize": not isinstance(cfg.size, OwnSize)}
    if isinstance(cfg.size, ShortestEdge):
        size["size"] = {"shortest_edge": cfg.size.pixels}
    elif isinstance(cfg.size, ExactSize):
        size["size"] = {"height": cfg.size.height, "width": cfg.size.width}
    crop = {"do_center_crop": False} if cfg.crop is None else {
        "do_center_crop": True, "crop_size": {"height": cfg.crop[0], "width": cfg.crop[1]},
    }  # fmt: skip
    each = [list(values) * (inputs.channels if len(values) == 1 else 1) for values in (cfg.mean, cfg.std)]
    described = {
        "image_processor_type": "ViTImageProcessor" if cfg.crop is None else "BitImageProcessor",
        **size,
        "do_convert_rgb": cfg.white,
        "resample": get_args(ResamplingFilter).index(cfg.filter),
        **crop,
        "do_rescale": cfg.scale is not None,
        "rescale_factor": cfg.scale or 1 / 255,
        "do_normalize": True,
        "image_mean": each[0],
        "image_std": each[1],
    }
    write_json(folder / FILE, described)
