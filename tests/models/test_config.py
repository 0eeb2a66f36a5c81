"""MobileViTConfig: defaults, JSON both ways with transformers, labels, and values that do not fit."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from mobilevit_fast.config import PRESETS, MobileViTConfig
from mobilevit_fast.config.checks import RULES
from mobilevit_fast.models import MobileViTForImageClassification, MobileViTModel
from testing.peers import import_transformers

LABELS = {"id2label": {0: "cat", 1: "dog", 2: "eel"}, "label2id": {"cat": 0, "dog": 1, "eel": 2}}


def their_config(**values: Any) -> Any:
    return import_transformers().MobileViTConfig(**values)


def test_defaults_are_those_of_transformers() -> None:
    values, their_values = MobileViTConfig().to_dict(), their_config().to_dict()
    assert {key: their_values[key] for key in values} == values


@pytest.mark.parametrize(
    "options", [{}, {"num_labels": 1000}, LABELS, {"num_labels": 0}, {"dtype": "bfloat16"}], ids=str
)
def test_json_of_transformers_both_ways(options: dict[str, Any], tmp_path: Path) -> None:
    theirs = their_config(patch_size=4, output_stride=16, **options)
    theirs.save_pretrained(tmp_path / "theirs")
    ours = MobileViTConfig.from_pretrained(tmp_path / "theirs")
    assert ours.patch_size == 4
    assert ours.id2label == theirs.id2label
    assert ours.dtype == theirs.dtype

    ours.save_pretrained(tmp_path / "ours")
    again = import_transformers().MobileViTConfig.from_pretrained(tmp_path / "ours")
    assert again.to_dict() == theirs.to_dict()
    written, their_written = ((tmp_path / name / "config.json").read_text() for name in ("ours", "theirs"))
    assert json.loads(written) == json.loads(their_written)
    assert MobileViTConfig.from_pretrained(tmp_path / "ours" / "config.json") == ours


def test_json_has_string_keys_and_dictionary_has_integer_keys() -> None:
    config = MobileViTConfig(num_labels=11)
    assert list(config.to_dict()["id2label"]) == list(range(11))
    values = json.loads(config.to_json_string())
    assert list(values["id2label"]) == [str(index) for index in range(11)]
    assert MobileViTConfig.from_dict(values) == MobileViTConfig.from_dict(config.to_dict()) == config


def test_unknown_keys_survive(tmp_path: Path) -> None:
    config = MobileViTConfig(future_option={"a": [1, None]}, transformers_version="4.20.0")
    assert config.future_option == {"a": [1, None]}
    config.later = "set"
    config.save_pretrained(tmp_path)
    again = MobileViTConfig.from_pretrained(tmp_path)
    assert again.future_option == {"a": [1, None]}
    assert again.later == "set"
    assert json.loads(again.to_json_string())["transformers_version"] == "4.20.0"
    assert again == config


def test_presets() -> None:
    # Sizes of the hub's apple/mobilevit-small, -x-small and -xx-small.
    sizes = {
        "small": ([144, 192, 240], [16, 32, 64, 96, 128, 160, 640], 4.0, 0.1),
        "x_small": ([96, 120, 144], [16, 32, 48, 64, 80, 96, 384], 4.0, 0.1),
        "xx_small": ([64, 80, 96], [16, 16, 24, 48, 64, 80, 320], 2.0, 0.05),
    }
    assert sizes.keys() == PRESETS.keys()
    for name, expected in sizes.items():
        config = MobileViTConfig.preset(name)
        got = config.hidden_sizes, config.neck_hidden_sizes, config.expand_ratio, config.hidden_dropout_prob
        assert got == expected
    assert MobileViTConfig.preset("xx_small", expand_ratio=3, num_labels=7).expand_ratio == 3
    with pytest.raises(ValueError, match=r"preset: expected one of small, x_small, xx_small, got 'tiny'"):
        MobileViTConfig.preset("tiny")


def test_a_configuration_keeps_its_own_lists() -> None:
    sizes = [144, 192, 240]
    config = MobileViTConfig(hidden_sizes=sizes)
    sizes[0] = 1
    config.to_dict()["hidden_sizes"][1] = 1
    assert config.hidden_sizes == [144, 192, 240]
    MobileViTConfig.preset("xx_small").hidden_sizes[0] = 1
    assert MobileViTConfig.preset("xx_small").hidden_sizes[0] == 64


def test_num_labels_and_names() -> None:
    assert MobileViTConfig().id2label == {0: "LABEL_0", 1: "LABEL_1"}
    config = MobileViTConfig(id2label={"0": "cat", "1": "dog"})
    assert (config.num_labels, config.id2label, config.label2id) == (
        2,
        {0: "cat", 1: "dog"},
        {"cat": 0, "dog": 1},
    )
    assert MobileViTConfig(label2id={"cat": 0, "dog": "1"}) == config
    config.num_labels = 2
    assert config.id2label[1] == "dog"
    config.num_labels = 3
    assert config.id2label == {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"}
    assert config.label2id == {"LABEL_0": 0, "LABEL_1": 1, "LABEL_2": 2}


@pytest.mark.parametrize("keys", [int, str])
def test_names_of_classes_count_more_than_their_number(keys: type, tmp_path: Path) -> None:
    """As in transformers 4 and, in later ones, in from_pretrained, whose constructor drops the names."""
    names = {keys(0): "cat", keys(1): "dog"}
    message = r"num_labels: expected 2, the number of names in id2label, which count; got 3"
    MobileViTConfig(**LABELS).save_pretrained(tmp_path)
    (tmp_path / "both.json").write_text(json.dumps({"num_labels": 3, "id2label": names}))
    for make in (
        lambda: MobileViTConfig(num_labels=3, id2label=names),
        lambda: MobileViTConfig.preset("xx_small", num_labels=3, id2label=names),
        lambda: MobileViTConfig.from_pretrained(tmp_path, num_labels=3, id2label=names),
        lambda: MobileViTConfig.from_pretrained(tmp_path / "both.json"),
    ):
        with pytest.warns(UserWarning, match=message):
            config = make()
        assert (config.num_labels, config.id2label) == (2, {0: "cat", 1: "dog"})
        assert config.label2id == {"cat": 0, "dog": 1}
    theirs = their_config(**LABELS)
    theirs.save_pretrained(tmp_path)
    assert type(theirs).from_pretrained(tmp_path, num_labels=3, id2label={0: "cat", 1: "dog"}).num_labels == 2


def test_label2id_by_itself_names_as_many_classes_as_there_are() -> None:
    indices = {"cat": 0, "dog": 1}
    assert MobileViTConfig(label2id=indices, num_labels=2).id2label == {0: "cat", 1: "dog"}
    with pytest.warns(UserWarning, match=r"num_labels: 3 replaces the 2 names of label2id"):
        config = MobileViTConfig(label2id=indices, num_labels=3)
    assert config.id2label == their_config(label2id=indices, num_labels=3).id2label
    assert config.label2id == {"LABEL_0": 0, "LABEL_1": 1, "LABEL_2": 2}


def test_configurations_of_transformers_are_converted() -> None:
    theirs = their_config(**LABELS, hidden_sizes=[8, 12, 16], output_stride=16)
    model = MobileViTModel(theirs)
    assert MobileViTForImageClassification(theirs).classifier.out_features == 3
    assert model.config == MobileViTConfig(**MobileViTConfig.converted(theirs, "test").to_dict())
    assert (model.config.output_stride, model.config.id2label) == (16, LABELS["id2label"])
    with pytest.raises(TypeError, match="MobileViTModel: expected a MobileViTConfig, got ViTConfig"):
        MobileViTModel(import_transformers().ViTConfig())


def test_overriding_num_labels_of_a_file_renames_the_classes(tmp_path: Path) -> None:
    MobileViTConfig(**LABELS).save_pretrained(tmp_path)
    assert MobileViTConfig.from_pretrained(tmp_path, num_labels=3).id2label == LABELS["id2label"]
    fewer = MobileViTConfig.from_pretrained(tmp_path, num_labels=2)
    assert fewer.id2label == {0: "LABEL_0", 1: "LABEL_1"}
    assert fewer.label2id == {"LABEL_0": 0, "LABEL_1": 1}
    names = {0: "yes", 1: "no"}
    assert MobileViTConfig.from_pretrained(tmp_path, id2label=names).label2id == {
        "yes": 0,
        "no": 1,
    }


@pytest.mark.parametrize("name", ["dtype", "torch_dtype"])
@pytest.mark.parametrize("value", ["float16", "torch.float16", torch.float16])
def test_dtype(name: str, value: Any) -> None:
    config = MobileViTConfig(**{name: value})
    assert config.dtype is torch.float16
    assert json.loads(config.to_json_string())["dtype"] == "float16"
    assert "torch_dtype" not in config.to_dict()


BAD_VALUES: list[tuple[dict[str, Any], str]] = [
    ({"num_channels": 0}, r"num_channels: expected an integer of at least 1, got 0"),
    ({"image_size": [256]}, r"image_size: expected an integer of at least 1 or a pair .*, got \[256\]"),
    (
        {"patch_size": 0},
        r"patch_size: expected an integer of at least 1 or a pair \(height, width\) of them, got 0",
    ),
    ({"patch_size": "2"}, r"patch_size: .*, got '2'"),
    ({"hidden_sizes": [144, 192]}, r"hidden_sizes: expected 3 integers of at least 1, got \[144, 192\]"),
    (
        {"hidden_sizes": [144, 190, 240]},
        r"hidden_sizes: expected multiples of num_attention_heads=4, got \[144, 190",
    ),
    ({"num_attention_heads": 7}, r"hidden_sizes: expected multiples of num_attention_heads=7, got \[144"),
    ({"neck_hidden_sizes": [16] * 6}, r"neck_hidden_sizes: expected 7 integers of at least 1, got"),
    ({"num_attention_heads": True}, r"num_attention_heads: expected an integer of at least 1, got True"),
    ({"mlp_ratio": 0}, r"mlp_ratio: expected a number above 0, got 0"),
    ({"mlp_ratio": 0.001}, r"mlp_ratio: expected at least 1/144, one unit in the narrowest MLP, got 0\.001"),
    ({"expand_ratio": float("nan")}, r"expand_ratio: expected a number above 0, got nan"),
    ({"hidden_act": "sillu"}, r"hidden_act: expected one of gelu, .*, got 'sillu'"),
    ({"conv_kernel_size": 4}, r"conv_kernel_size: expected an odd integer of at least 1, got 4"),
    ({"output_stride": 4}, r"output_stride: expected one of 8, 16, 32, got 4"),
    ({"output_stride": 8.0}, r"output_stride: expected one of 8, 16, 32, got 8\.0"),
    ({"hidden_dropout_prob": 1.1}, r"hidden_dropout_prob: expected a probability, 0 to 1, got 1\.1"),
    ({"attention_probs_dropout_prob": -0.1}, r"attention_probs_dropout_prob: expected a probability"),
    ({"classifier_dropout_prob": None}, r"classifier_dropout_prob: expected a probability, 0 to 1, got None"),
    ({"aspp_dropout_prob": 2}, r"aspp_dropout_prob: expected a probability"),
    ({"initializer_range": -1}, r"initializer_range: expected a number of at least 0, got -1"),
    ({"layer_norm_eps": "1e-5"}, r"layer_norm_eps: expected a number of at least 0, got '1e-5'"),
    ({"qkv_bias": 1}, r"qkv_bias: expected True or False, got 1"),
    ({"aspp_out_channels": 2.5}, r"aspp_out_channels: expected an integer of at least 1, got 2\.5"),
    ({"atrous_rates": [6, 12]}, r"atrous_rates: expected 3 integers of at least 1, got \[6, 12\]"),
    ({"semantic_loss_ignore_index": None}, r"semantic_loss_ignore_index: expected an integer, got None"),
    ({"num_labels": -1}, r"num_labels: expected an integer of at least 0, got -1"),
    ({"num_labels": "3"}, r"num_labels: expected an integer of at least 0, got '3'"),
    ({"id2label": ["a", "b"]}, r"id2label: expected a mapping from class indices to names, got \['a', 'b'\]"),
    ({"id2label": {"a": "b"}}, r"id2label: expected a mapping from class indices to names, got"),
    (
        {"id2label": {0: "a"}, "label2id": {"a": "x"}},
        r"label2id: expected a mapping from names to class indices, got",
    ),
    ({"problem_type": "ranking"}, r"problem_type: expected one of None, regression, .*, got 'ranking'"),
    (
        {"problem_type": "single_label_classification", "num_labels": 1},
        r'problem_type: expected "regression" or at least 2 labels',
    ),
    ({"architectures": "MobileViTModel"}, r"architectures: expected a list of names of classes, or None, got"),
    ({"return_dict": None}, r"return_dict: expected True or False, got None"),
    ({"output_hidden_states": "no"}, r"output_hidden_states: expected True or False, got 'no'"),
    ({"dtype": "float13"}, r"dtype: expected a torch\.dtype or its name, got 'float13'"),
    ({"dtype": "nn"}, r"dtype: expected a torch\.dtype or its name, got 'nn'"),
    ({"dtype": 16}, r"dtype: expected a torch\.dtype or its name, got 16"),
    ({"model_type": "mobilevitv2"}, r"model_type: expected 'mobilevit', got 'mobilevitv2'"),
    ({"to_dict": 1}, r"to_dict: expected no such field, the name is taken by a method, got 1"),
]


@pytest.mark.parametrize(("values", "message"), BAD_VALUES, ids=lambda value: str(value)[:40])
def test_bad_values(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=r"^MobileViTConfig\." + message):
        MobileViTConfig(**values)


def test_every_field_has_a_bad_value_above() -> None:
    assert set(RULES) <= {field for values, _ in BAD_VALUES for field in values}


def test_models_check_what_was_assigned_later() -> None:
    config = MobileViTConfig.preset("xx_small")
    config.output_stride = 64
    with pytest.raises(ValueError, match=r"MobileViTConfig\.output_stride: expected one of 8, 16, 32, got 64"):
        MobileViTModel(config)
    with pytest.raises(ValueError, match="output_stride"):
        config.save_pretrained("never made")
    with pytest.raises(TypeError, match="expected a MobileViTConfig, got dict"):
        MobileViTModel({})  # type: ignore[arg-type]


@pytest.mark.parametrize("content", ["", "{", "[1]", '"a"', "\xff"])
def test_files_that_are_no_configuration(content: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(ValueError, match=r"config\.json: expected a JSON (file|object), got") as error:
        MobileViTConfig.from_pretrained(tmp_path)
    assert "\n" not in str(error.value)


def test_missing_files(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        MobileViTConfig.from_pretrained(tmp_path)
    for name in (str(tmp_path / "nothing"), "mobilevit-fast/no-such-model"):
        with pytest.raises(OSError, match="expected a folder, a JSON file or the id of a model on the hub") as error:
            MobileViTConfig.from_pretrained(name, local_files_only=True, cache_dir=tmp_path / "cache")
        assert "\n" not in str(error.value)


def test_repr_and_equality() -> None:
    config = MobileViTConfig(num_labels=3)
    assert '"output_stride": 32' in repr(config)
    assert config == MobileViTConfig(num_labels=3)
    assert config != MobileViTConfig(num_labels=4)
    assert config != "config"
    with pytest.raises(TypeError, match="unhashable"):
        hash(config)
