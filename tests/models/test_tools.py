"""What Trainer, pipelines, Accelerator and peft call on a model, on ours as on transformers'."""

import copy
import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import mobilevit_fast as mvf
from mobilevit_fast.models import MobileViTForImageClassification
from mobilevit_fast.models.outputs import ImageClassifierOutput
from testing.pairs import CLASSIFICATION, SEGMENTATION, images, make_pair, tiny_config
from testing.peers import import_transformers
from testing.tolerance import assert_within_twice, rms_error

CALLED_BY_TOOLS = {
    *("num_parameters", "get_memory_footprint", "can_generate", "tie_weights", "get_output_embeddings"),
    *("gradient_checkpointing_enable", "gradient_checkpointing_disable", "add_model_tags"),
    *("activation_checkpointing_enable", "activation_checkpointing_disable"),
    *("enable_input_require_grads", "disable_input_require_grads", "get_input_embeddings"),
}
ATTRIBUTES = {
    *("base_model_prefix", "main_input_name", "input_modalities", "supports_gradient_checkpointing"),
    *("_keys_to_ignore_on_save", "model_tags"),
}


class Dataset(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
    """Eight images of noise, of five classes."""

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"pixel_values": images(1, 64, 64, seed=index)[0], "labels": torch.tensor(index % 5)}


@pytest.fixture
def pair() -> tuple[Any, Any]:
    return make_pair(CLASSIFICATION, tiny_config())


@pytest.mark.parametrize("name", sorted(CALLED_BY_TOOLS))
def test_methods_take_the_arguments_of_transformers(name: str, pair: tuple[Any, Any]) -> None:
    ours, theirs = (inspect.signature(getattr(model, name)).parameters for model in pair)
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in ours.values())
    assert takes_any or set(theirs) - {"kwargs"} <= set(ours)
    positional = [n for n, p in theirs.items() if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert list(ours)[: len(positional)] == positional or takes_any


def test_attributes_are_those_of_transformers(pair: tuple[Any, Any]) -> None:
    ours, theirs = pair
    for name in ATTRIBUTES:
        assert getattr(ours, name) == getattr(theirs, name), name
    for name in ("is_activation_checkpointing", "device", "dtype"):
        assert getattr(ours, name) == getattr(theirs, name), name
    assert set(ours._no_split_modules) == set(theirs._no_split_modules)
    assert ours.base_model is ours.mobilevit
    assert ours.mobilevit.base_model is ours.mobilevit
    assert ours.can_generate() is theirs.can_generate() is False
    assert ours.get_output_embeddings() is theirs.get_output_embeddings() is None
    for model in pair:
        with pytest.raises(NotImplementedError):
            model.get_input_embeddings()


@pytest.mark.parametrize("arguments", [{}, {"only_trainable": True}, {"exclude_embeddings": True}], ids=str)
@pytest.mark.parametrize("accelerated", [False, True], ids=["plain", "accelerated"])
def test_numbers_of_parameters(pair: tuple[Any, Any], arguments: dict[str, bool], accelerated: bool) -> None:
    for model in pair:
        model.classifier.requires_grad_(False)
        model.extra = nn.Embedding(3, 4)
        if accelerated:
            mvf.accelerate(model)
    assert pair[0].num_parameters(**arguments) == pair[1].num_parameters(**arguments)
    assert pair[0].num_parameters(True, True) == pair[1].num_parameters(True, True)
    for return_buffers in (False, True):
        ours, theirs = (model.get_memory_footprint(return_buffers) for model in pair)
        assert ours == theirs


def test_gradient_checkpointing_takes_options() -> None:
    model = MobileViTForImageClassification(tiny_config())
    blocks = model.mobilevit.encoder.layer[2:]
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": True})
    assert [block.gradient_checkpointing for block in blocks] == [True] * 3
    model.activation_checkpointing_disable()
    assert not model.is_activation_checkpointing
    model.activation_checkpointing_enable(activation_checkpointing_kwargs=None, every_n_layers=2, offload=False)
    assert [block.gradient_checkpointing for block in blocks] == [True, False, True]
    assert model.is_activation_checkpointing
    assert model.is_gradient_checkpointing
    with pytest.raises(ValueError, match=r"expected preserve_rng_state=True, offload=False, got offload=True"):
        model.activation_checkpointing_enable(offload=True)
    with pytest.raises(ValueError, match=r"got debug=True"):
        model.gradient_checkpointing_enable({"debug": True})
    with pytest.raises(ValueError, match=r"every_n_layers: expected an integer of at least 1, got 0"):
        model.activation_checkpointing_enable(every_n_layers=0)


def test_what_is_not_there_names_its_substitute() -> None:
    model = MobileViTForImageClassification(tiny_config())
    with pytest.raises(NotImplementedError, match=r"save_pretrained\(folder\) and then .*upload_folder"):
        model.push_to_hub("me/mine")
    with pytest.raises(NotImplementedError, match=r"peft\.get_peft_model"):
        model.add_adapter(object())
    model.add_model_tags("trl")
    model.add_model_tags(["trl", "sft"])
    assert model.model_tags == ["trl", "sft"]


def test_a_subclass_may_end_its_constructor_as_those_of_transformers_do() -> None:
    class WithTwoHeads(MobileViTForImageClassification):
        def __init__(self, config: Any) -> None:
            super().__init__(config)
            self.second = nn.Linear(24, 3)
            self.post_init()

    model = WithTwoHeads(tiny_config())
    assert model.second.bias.eq(0).all()
    assert model.second.weight.std() < 0.05


def test_outputs_take_entries_and_are_made_of_mappings() -> None:
    output = ImageClassifierOutput(logits=torch.ones(1, 2))
    output["target_size"] = [(3, 4)]
    assert output["target_size"] == output.target_size == [(3, 4)]
    assert list(output) == ["logits", "target_size"]
    assert list(copy.copy(output)) == list(output)
    output["loss"] = torch.zeros(())
    converted = type(output)({name: value for name, value in output.items() if name != "target_size"})
    assert list(converted) == ["loss", "logits"]
    assert converted.logits is output.logits
    assert ImageClassifierOutput({"logits": output.logits}).loss is None


@pytest.mark.parametrize("task", ["image-classification", "image-segmentation", "image-feature-extraction"])
def test_pipelines_answer_as_with_a_model_of_transformers(task: str) -> None:
    transformers = import_transformers()
    name = {"image-classification": CLASSIFICATION, "image-segmentation": SEGMENTATION}.get(task, "MobileViTModel")
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 60, 3), dtype=np.uint8))
    answers = []
    for model in make_pair(name, tiny_config()):
        for processor in (transformers.MobileViTImageProcessorPil(), mvf.MobileViTImageProcessor()):
            pipeline = transformers.pipeline(task, model=model, image_processor=processor, device="cpu")
            answers.append(pipeline(picture))
    for answer in answers[1:]:
        if task == "image-classification":
            assert [one["label"] for one in answer] == [one["label"] for one in answers[0]]
            scores = [[one["score"] for one in each] for each in (answer, answers[0])]
            np.testing.assert_allclose(*scores, rtol=1e-4)
        elif task == "image-segmentation":
            assert [one["label"] for one in answer] == [one["label"] for one in answers[0]]
        else:
            np.testing.assert_allclose(answer, answers[0], rtol=1e-3, atol=1e-5)


def arguments_of_training(folder: Path, **options: Any) -> Any:
    values = {"output_dir": str(folder), "max_steps": 2, "per_device_train_batch_size": 2, "report_to": []}
    values |= {"use_cpu": True, "disable_tqdm": True, "save_strategy": "no", **options}
    return import_transformers().TrainingArguments(**values)


@pytest.mark.parametrize("accelerated", [False, True], ids=["plain", "accelerated"])
@pytest.mark.filterwarnings("ignore")
def test_trainer(pair: tuple[Any, Any], accelerated: bool, tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    transformers = import_transformers()
    losses = []
    for number, model in enumerate(pair):
        arguments = arguments_of_training(tmp_path / str(number))
        trained = mvf.accelerate(model) if accelerated else model
        trainer = transformers.Trainer(trained, arguments, train_dataset=Dataset(), eval_dataset=Dataset())
        losses.append((trainer.train().training_loss, trainer.evaluate()["eval_loss"]))
        assert trainer.predict(Dataset()).predictions.shape == (8, 5)
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)


@pytest.mark.filterwarnings("ignore")
def test_a_model_after_a_trainer_in_bfloat16(pair: tuple[Any, Any], tmp_path: Path) -> None:
    """Trainer puts a forward under autocast on the model, around the one that it had."""
    pytest.importorskip("accelerate")
    x = torch.randn(1, 3, 64, 64)
    for number, model in enumerate(pair):
        mvf.accelerate(model)
        arguments = arguments_of_training(tmp_path / str(number), bf16=True)
        trainer = import_transformers().Trainer(model, arguments, train_dataset=Dataset(), eval_dataset=Dataset())
        trainer.train()
        assert trainer.predict(Dataset()).predictions.shape == (8, 5)
        model.eval()
        with torch.no_grad():
            fused = model(x).logits
            assert mvf.report(model).fused
            restored = mvf.restore(model)(x).logits
            # Without what Trainer put on it.
            exact = type(model).forward(copy.deepcopy(model).double(), x.double()).logits
            with torch.autocast("cpu", dtype=torch.bfloat16):
                plain = type(model).forward(model, x).logits.float()
        assert torch.equal(restored, plain)
        assert_within_twice(fused, plain, exact, measure=rms_error)


@pytest.mark.filterwarnings("ignore")
def test_trainer_goes_on_from_its_own_checkpoint(tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    model = make_pair(CLASSIFICATION, tiny_config())[0]
    options = {"save_strategy": "steps", "save_steps": 1, "eval_strategy": "steps", "eval_steps": 1}
    options |= {"load_best_model_at_end": True, "gradient_checkpointing": True}
    for max_steps, resume in ((1, None), (2, True)):
        arguments = arguments_of_training(tmp_path, max_steps=max_steps, **options)
        trainer = import_transformers().Trainer(model, arguments, train_dataset=Dataset(), eval_dataset=Dataset())
        trainer.train(resume_from_checkpoint=resume)
    assert trainer.state.global_step == 2
    weights = MobileViTForImageClassification.from_pretrained(tmp_path / "checkpoint-2").state_dict()
    assert weights.keys() == model.state_dict().keys()


@pytest.mark.filterwarnings("ignore")
def test_accelerator(pair: tuple[Any, Any], tmp_path: Path) -> None:
    accelerate = pytest.importorskip("accelerate")
    accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = accelerate.Accelerator(mixed_precision="bf16", cpu=True)
    x = images(2, 64, 64)
    outputs = []
    for number, model in enumerate(pair):
        prepared = accelerator.prepare(model)
        outputs.append(prepared(x, labels=torch.tensor([0, 1])))
        accelerator.unwrap_model(prepared).save_pretrained(
            tmp_path / str(number),
            is_main_process=accelerator.is_main_process,
            save_function=accelerator.save,
            state_dict=accelerator.get_state_dict(prepared),
        )
        assert (tmp_path / str(number) / "model.safetensors").is_file()
    assert outputs[0].logits.dtype == outputs[1].logits.dtype == torch.float32
    torch.testing.assert_close(outputs[0].loss, outputs[1].loss, atol=0.05, rtol=0.05)


@pytest.mark.filterwarnings("ignore")
def test_adapters_of_peft(pair: tuple[Any, Any], tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    for number, model in enumerate(pair):
        config = peft.LoraConfig(r=2, target_modules=["query", "value"], modules_to_save=["classifier"])
        adapted = peft.get_peft_model(copy.deepcopy(model), config)
        adapted.enable_input_require_grads()
        adapted(images(2, 64, 64), labels=torch.tensor([0, 1])).loss.backward()
        adapted.save_pretrained(tmp_path / str(number))
        again = peft.PeftModel.from_pretrained(model, tmp_path / str(number))
        assert type(again.merge_and_unload()) is type(model)


def test_saving_takes_the_arguments_of_transformers(tmp_path: Path) -> None:
    model = MobileViTForImageClassification(tiny_config())
    model.save_pretrained(tmp_path / "not main", is_main_process=False)
    assert not (tmp_path / "not main").exists()
    weights = {name: torch.ones_like(tensor) for name, tensor in model.state_dict().items()}
    model.save_pretrained(tmp_path / "ones", True, weights, safe_serialization=True, max_shard_size="1GB", token=None)
    loaded = MobileViTForImageClassification.from_pretrained(tmp_path / "ones")
    assert all(parameter.eq(1).all() for parameter in loaded.parameters())
    for options, substitute in (
        ({"push_to_hub": True}, "upload_folder"),
        ({"safe_serialization": False}, r"torch\.save"),
        ({"variant": "fp16"}, "a folder of its own"),
    ):
        with pytest.raises(TypeError, match=substitute):
            model.save_pretrained(tmp_path / "never", **options)
    with pytest.raises(TypeError, match="save_pretrained: expected options of transformers, got max_size"):
        model.save_pretrained(tmp_path / "never", max_size=1)
    assert not (tmp_path / "never").exists()
