"""Lists that name fields in words follow the fields: a field that is renamed would otherwise drop out of them."""

import dataclasses

import pytest

from dragoman.config import from_dict, merge
from dragoman.interchange.family import _NO_MATTER
from dragoman.migrations import _RENAMED
from dragoman.model.contrastive import TwoTowersConfig
from dragoman.model.encoder import EncoderConfig
from dragoman.model.inference.known import check_known
from dragoman.model.inputs import PatchInput
from dragoman.model.transformer import TransformerConfig
from dragoman.presets import PRESETS


def names(part):
    return {field.name for field in dataclasses.fields(part)}


@pytest.mark.parametrize("name", ["transformer-tiny", "transformer-fast", "lm-tiny"])
def test_the_kernels_know_the_models_that_presets_make(name):
    check_known(from_dict(TransformerConfig, merge(PRESETS[name]()["model"], {"vocab": 100})), "model")


def test_fields_that_no_family_describes_exist():
    assert names(TransformerConfig) | names(EncoderConfig) | names(PatchInput) | names(TwoTowersConfig) >= _NO_MATTER


def test_migrations_end_at_fields_that_exist():
    ours = {name for path, name in _RENAMED.items() if path[:-1] == ("model",)}
    assert ours and ours <= names(TransformerConfig)
