"""Configuration: what is written comes back, and a mistake is one line that names its place."""

import copy
import dataclasses
import json
from typing import Annotated, Any

import pytest
from pydantic import Field
from variants import MODELS

from dragoman import presets
from dragoman.config import (
    OneOf,
    at,
    config,
    differences,
    dump_yaml,
    from_dict,
    json_schema,
    kind_of,
    load_yaml,
    merge,
    override,
    to_dict,
)
from dragoman.errors import ConfigError, UserError
from dragoman.model.attention import AttentionConfig
from dragoman.model.families import ModelConfig
from dragoman.model.masks.visibility import Structural
from dragoman.model.norm import Norm
from dragoman.model.positions.position import NoPosition, Sinusoidal
from dragoman.model.positions.rotary import LinearScaling, Rotary
from dragoman.model.transformer import TransformerConfig

MODEL = to_dict(MODELS["rotary"].config("encoder-decoder"))


def read(*assignments: str) -> TransformerConfig:
    data = MODEL
    for assignment in assignments:
        data = override(data, assignment)
    return from_dict(TransformerConfig, data)


def mixer(cfg: TransformerConfig) -> AttentionConfig:
    return cfg.decoder.pattern[0].mixer


# ---- there and back --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_a_configuration_comes_back_from_json_and_from_yaml(name):
    cfg = MODELS[name].config("encoder-decoder")
    assert from_dict(TransformerConfig, json.loads(json.dumps(to_dict(cfg)))) == cfg
    assert from_dict(TransformerConfig, load_yaml(dump_yaml(cfg))) == cfg


def test_every_field_is_written_out_in_the_order_it_was_declared():
    text = dump_yaml(Rotary(scaling=LinearScaling(factor=2.0)))
    assert text.splitlines() == [
        "kind: rotary",
        "theta: 10000.0",
        "scaling:",
        "  kind: linear_scaling",
        "  factor: 2.0",
        "fraction: 1.0",
        "pairs: halves",
    ]


def test_a_kind_is_the_name_of_the_class_in_small_letters():
    assert [kind_of(cls) for cls in (NoPosition, AttentionConfig, TransformerConfig)] == [
        "no_position",
        "attention",
        "transformer",
    ]


def test_configurations_are_frozen_and_hashable():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Rotary().theta = 3.0  # pyright: ignore[reportAttributeAccessIssue]
    assert len({Rotary(), Rotary(theta=10_000.0), Rotary(theta=3.0)}) == 2
    assert hash(MODELS["t5"].config("decoder-only")) == hash(MODELS["t5"].config("decoder-only"))


def test_yaml_numbers_are_those_of_version_1_2():
    assert load_yaml("{a: 1e-4, b: no, c: 012, d: .5, e: null, f: 1_000}") == {
        "a": 1e-4, "b": "no", "c": 12, "d": 0.5, "e": None, "f": load_yaml("1_000"),
    }  # fmt: skip


# ---- changing --------------------------------------------------------------------------------------


def test_an_override_reaches_leaves_unions_entries_and_every_entry():
    assert read("decoder.depth=3").decoder.depth == 3
    assert mixer(read("decoder.pattern.0.mixer.position=no_position")).position == NoPosition()
    assert mixer(read("decoder.pattern.0.mixer.position.theta=5e5")).position == Rotary(theta=5e5)
    cfg = read("*.pattern.*.dropout=0.25", "*.depth=4")
    assert (cfg.encoder.pattern[0].dropout, cfg.decoder.pattern[0].dropout) == (0.25, 0.25)
    assert (cfg.encoder.depth, cfg.decoder.depth) == (4, 4)


def test_a_mapping_is_laid_over_and_a_new_kind_replaces():
    scaled = read("decoder.pattern.0.mixer.position={theta: 3.0, scaling: {kind: linear_scaling, factor: 2.0}}")
    assert mixer(scaled).position == Rotary(theta=3.0, scaling=LinearScaling(factor=2.0))
    again = override(to_dict(scaled), "decoder.pattern.0.mixer.position={fraction: 0.5}")
    position = mixer(from_dict(TransformerConfig, again)).position
    assert position == Rotary(theta=3.0, scaling=LinearScaling(factor=2.0), fraction=0.5)
    other = override(again, "decoder.pattern.0.mixer.position={kind: no_position}")
    assert mixer(from_dict(TransformerConfig, other)).position == NoPosition()


def test_a_list_inside_a_choice_is_read():
    cfg = read("decoder.pattern.0.mixer.visibility={kind: structural, sees: [[0], [0, 1]]}")
    assert mixer(cfg).visibility == Structural(sees=((0,), (0, 1)))


def test_a_kind_alone_is_short_for_its_defaults_and_can_be_refined():
    assert read("position=sinusoidal").position == Sinusoidal()
    assert read("position=sinusoidal", "position.base=100.0").position == Sinusoidal(base=100.0)
    assert merge({"position": "rotary"}, {"position": {"theta": 5.0}}) == {"position": {"kind": "rotary", "theta": 5.0}}


def test_what_is_overridden_stays_as_it_was():
    before = copy.deepcopy(MODEL)
    override(MODEL, "*.pattern.*.mixer.heads=2")
    merge(MODEL, {"decoder": {"depth": 9}})
    assert before == MODEL


def test_merging_goes_down_mappings_and_replaces_everything_else():
    base = {"a": {"x": 1, "y": [1, 2]}, "b": 3, "c": {"kind": "one", "x": 1}}
    change = {"a": {"y": [9]}, "b": {"z": 1}, "c": {"kind": "two"}, "d": None}
    assert merge(base, change) == {"a": {"x": 1, "y": [9]}, "b": {"z": 1}, "c": {"kind": "two"}, "d": None}
    assert merge({"train": {"x": 1}}, {"train": {"kind": "train", "y": 2}}) == {
        "train": {"x": 1, "kind": "train", "y": 2}
    }


def test_differences_are_leaves_with_their_paths():
    a = {"x": 1, "same": 0, "list": [{"y": 1}, {"y": 2}], "gone": True, "shape": [1, 2], "deep": {"k": {"l": 1}}}
    b = {"x": 2, "same": 0, "list": [{"y": 1}, {"y": 3}], "new": "n", "shape": [1], "deep": {"k": {"l": 1}}}
    assert differences(a, b) == [
        ("x", 1, 2),
        ("list.1.y", 2, 3),
        ("gone", True, None),
        ("shape", [1, 2], [1]),
        ("new", None, "n"),
    ]
    assert differences(a, copy.deepcopy(a)) == []
    changed = override(MODEL, "decoder.pattern.0.mixer.heads=2")
    assert differences(MODEL, changed) == [("decoder.pattern.0.mixer.heads", 4, 2)]


# ---- mistakes --------------------------------------------------------------------------------------

MISTAKES = {  # @ stands for decoder.pattern.0
    "decoder.depht=3": "decoder: no 'depht' here. Did you mean 'depth'? Known: kind, depth, pattern, final_norm.",
    "@.mixer.position={kind: no_position, theta: 1.0}": "@.mixer.position: no 'theta' here. Known: kind. 'theta' is a",
    "dim=*.tsv": "dim=*.tsv: line 1: found undefined alias '.tsv': a text that begins so needs quotes",
    "dim=`x": "dim=`x: line 1: found character '`' that cannot start any token: a text that begins so needs quotes",
    "vocabb=3": "transformer: no 'vocabb' here. Did you mean 'vocab'? Known: kind, vocab, source_vocab, dim",
    "@.mixer.position=rotory": "@.mixer.position: no 'rotory' here. Did you mean 'rotary'? Known: no_position, rotary",
    "@.mixer.position.thetta=1.0": "@.mixer.position: no 'thetta' here. Did you mean 'theta'? Known: kind, theta",
    "@.mixer.position=[]": "@.mixer.position: expected a kind, or a mapping with a 'kind', got []",
    "@.mixer.position=3": "@.mixer.position: expected a kind, or a mapping with a 'kind', got 3",
    "@.placement=per": "@.placement: no 'per' here. Did you mean 'pre'? Known: post, pre, pre_mlp, sandwich, output.",
    "@.mixer.position.scaling=linear_scaling": "@.mixer.position.scaling.factor: must be given",
    "@.mixer.position.scaling={kind: linear_scaling, factor: x}": "@.mixer.position.scaling.factor: expected a number",
    "@.mixer.visibility={kind: structural, sees: [[0], [x]]}": "@.mixer.visibility.sees.1.0: expected a whole number",
    "@.mlp={kind: mixture, experts: 4, expert: {kind: gated, hiden: 4}}": "@.mlp.expert: no 'hiden' here. Did you mean",
    "decoder.depth=three": "decoder.depth: expected a whole number, got 'three'",
    "decoder.depth=2.5": "decoder.depth: expected a whole number, got 2.5",
    "decoder.depth=true": "decoder.depth: expected a whole number, got True",
    "decoder.depth=0": "decoder.depth: must be greater than 0, got 0",
    "dim='32'": "dim: expected a whole number, got '32'",
    "dim=2026-11-01": "dim: expected a whole number, got '2026-11-01'",
    "dropout=1.0": "dropout: must be less than 1, got 1.0",
    "dropout=yes": "dropout: expected a number, got 'yes'",
    "scale_embedding=1": "scale_embedding: expected true or false, got 1",
    "decoder.pattern={}": "decoder.pattern: expected a list, got {}",
    "decoder=3": "decoder: expected a mapping of settings, got 3",
    "decoder=null": "decoder: expected a mapping of settings, got None",
    "decoder.kind=towr": "decoder.kind: no 'towr' here. Did you mean 'tower'? Known: tower.",
    "decoder.pattern.3.norm=x": "decoder.pattern.3.norm: no entry '3'; there are 1, counted from 0, and * means each",
    "decoder.pattern.x.norm=x": "decoder.pattern.x.norm: no entry 'x'; there are 1, counted from 0, and * means each",
    "decoder.depth.x=1": "decoder.depth.x: nothing below 'x', it stands for the single value 2",
    "*.depht=1": "*.depht: nothing that * could stand for has a 'depht'",
    "decoder.depth": "'decoder.depth': write PATH=VALUE, for example decoder.depth=4",
    "=3": "'=3': write PATH=VALUE, for example decoder.depth=4",
    "decoder.depth=[1": "decoder.depth=[1: line 1: expected ',' or ']'",
}


@pytest.mark.parametrize("assignment", MISTAKES)
def test_a_mistake_names_its_place_and_the_likely_intent(assignment):
    with pytest.raises(ConfigError) as error:
        read(assignment.replace("@", "decoder.pattern.0"))
    assert str(error.value).startswith(MISTAKES[assignment].replace("@", "decoder.pattern.0"))
    assert "\n" not in str(error.value)
    assert isinstance(error.value, UserError)


@pytest.mark.parametrize("data", [None, 3, [], "x", True])
def test_what_is_no_mapping_is_told(data):
    with pytest.raises(ConfigError, match="expected a mapping of settings, got"):
        from_dict(TransformerConfig, data, "run.yaml")


def test_several_mistakes_are_counted_and_the_misspelt_one_told_first():
    with pytest.raises(
        ConfigError, match=r"^run\.yaml: no 'decodr' here\. Did you mean 'decoder'\?.*\(1 more after this one\)$"
    ):
        from_dict(TransformerConfig, {"dim": 3, "decodr": {}}, "run.yaml")


def test_a_value_that_contains_itself_is_refused():
    with pytest.raises(ConfigError, match=r"^config: Circular reference"):
        from_dict(TransformerConfig, load_yaml("dim: &x [*x]"))


def test_a_class_may_refuse_a_combination_of_its_values():
    @config
    class Range:
        low: int
        high: int

        def __post_init__(self) -> None:
            if self.low > self.high:
                raise ConfigError(f"low {self.low} lies above high {self.high}")

    @config
    class Holder:
        range: Range

    with pytest.raises(ConfigError, match=r"^range: low 3 lies above high 1$"):
        from_dict(Holder, {"range": {"low": 3, "high": 1}})


def test_a_mistake_found_while_building_gets_the_path_of_its_place():
    with pytest.raises(ConfigError, match=r"^model\.decoder\.heads: too many$"), at("model"), at("decoder"):
        raise ConfigError("heads: too many")


# ---- files -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content, says",
    [
        (b"a: 1\nb: [1,\nc: 2", "line 3:"),
        (b"a: 1\n\tb: 2", "line 2: found character '\\t'"),
        (b"a: 1\nb: 2\na: 3", 'line 3: found duplicate key "a"'),
        (b"a: 1\nb: !!python/object/apply:os.system [echo]", "line 2: could not determine a constructor"),
        (b"a: 1\nb: caf\xe9\n", "line 2: not UTF-8, a byte 0xe9"),
        (b"a: \x00", "unacceptable character #x0000"),
    ],
    ids=["unclosed", "tab", "twice", "tag", "latin-1", "nul"],
)
def test_a_broken_file_is_told_by_name_and_line(tmp_path, content, says):
    path = tmp_path / "run.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as error:
        load_yaml(path)
    assert str(error.value).startswith(f"{path}: {says}")
    assert "\n" not in str(error.value)


def test_a_missing_file_is_told_and_a_folder_is_none(tmp_path):
    with pytest.raises(ConfigError, match=r"absent\.yaml: no such file$"):
        load_yaml(tmp_path / "absent.yaml")
    with pytest.raises(ConfigError, match=f"^{tmp_path}: "):
        load_yaml(tmp_path)


def test_files_may_open_with_a_byte_order_mark_and_say_nothing(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: \xc3\xa9\r\nb: 1\r\n")
    assert load_yaml(path) == {"a": "é", "b": 1}
    path.write_bytes(b"")
    assert load_yaml(path) is None


# ---- the schema ------------------------------------------------------------------------------------


def test_the_schema_lists_every_choice_with_what_its_settings_mean():
    schema = json_schema(TransformerConfig)
    text = json.dumps(schema)
    assert schema["$schema"].endswith("2020-12/schema")
    for kind in ("alibi", "no_position", "rotary", "rotary_grid", "shaw", "t5_bias"):
        assert f'"const": "{kind}"' in text
    assert "Base of the wavelengths; larger reaches further." in text
    assert schema["$defs"]["Rotary"]["additionalProperties"] is False
    assert schema["$defs"]["TowerConfig"]["properties"]["depth"]["exclusiveMinimum"] == 0


def test_the_schema_accepts_what_is_written_and_refuses_what_is_not():
    jsonschema = pytest.importorskip("jsonschema")
    check = jsonschema.Draft202012Validator(json_schema(TransformerConfig)).is_valid
    for variant in MODELS.values():
        assert check(json.loads(json.dumps(to_dict(variant.config("encoder-decoder")))))
    assert check(override(MODEL, "decoder.pattern.0.mixer.position=alibi"))
    assert not check(override(MODEL, "position=learned"))  # must say for how many tokens
    for mistake in ("decoder.depht=3", "decoder.depth=three", "position=rotory", "decoder.depth=0"):
        assert not check(override(MODEL, mistake)), mistake


def test_a_choice_can_hold_choices():
    @config
    class Leaf:
        n: Annotated[int, Field(ge=0)] = 1

    @config
    class Branch:
        left: "Any" = None
        right: Annotated[Leaf | Rotary, OneOf()] = Leaf()

    cfg = from_dict(Annotated[Leaf | Branch, OneOf()], {"kind": "branch", "right": {"kind": "rotary", "theta": 2.0}})
    assert cfg == Branch(right=Rotary(theta=2.0))
    with pytest.raises(ConfigError, match=r"^right\.n: must be greater than or equal to 0, got -1$"):
        from_dict(Annotated[Leaf | Branch, OneOf()], {"kind": "branch", "right": {"kind": "leaf", "n": -1}})


def test_a_mapping_without_a_kind_is_of_the_usual_one_where_there_is_one():
    model = {"dim": 8, "decoder": {"depth": 1, "pattern": []}}
    assert from_dict(ModelConfig, model) == from_dict(ModelConfig, {"kind": "transformer"} | model)
    with pytest.raises(ConfigError, match=r"no 'encodr' here\. Did you mean 'encoder'"):
        from_dict(ModelConfig, {"kind": "encodr"} | model)
    with pytest.raises(ConfigError, match="expected a kind"):
        from_dict(Norm, {"eps": 1e-3})


def test_presets_are_plain_data_that_a_configuration_reads():
    for make in presets.PRESETS.values():
        model = make()["model"]
        cfg = from_dict(ModelConfig, model)
        assert to_dict(cfg) == model
        if isinstance(cfg, TransformerConfig):
            assert all(block.mixer.visibility.sees_only_past for block in cfg.decoder.pattern)
