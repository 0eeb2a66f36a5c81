"""ModelOutput as dataclass, mapping, tuple and pytree."""

import pickle

import pytest
import torch
from torch.utils import _pytree as pytree

from mobilevit_fast.models.outputs import ImageClassifierOutput, SemanticSegmenterOutput

LOGITS, STATE = torch.arange(3.0), torch.ones(2)


@pytest.fixture
def output() -> ImageClassifierOutput:
    return ImageClassifierOutput(logits=LOGITS, hidden_states=(STATE,))


def test_absent_fields_are_skipped(output: ImageClassifierOutput) -> None:
    assert output.loss is None
    assert list(output) == ["logits", "hidden_states"] == list(output.keys())
    assert len(output) == 2
    assert "loss" not in output
    assert output[0] is output["logits"] is output.logits is LOGITS
    assert output[1] is output["hidden_states"]
    assert output[-1] is output[1]
    assert output[:1] == (LOGITS,)
    assert output.to_tuple() == (LOGITS, (STATE,))
    assert dict(**output)["logits"] is LOGITS


def test_wrong_keys(output: ImageClassifierOutput) -> None:
    with pytest.raises(KeyError, match="loss"):
        output["loss"]
    with pytest.raises(KeyError, match="logit"):
        output["logit"]
    with pytest.raises(IndexError):
        output[2]
    with pytest.raises(TypeError, match="logit"):
        ImageClassifierOutput(logit=LOGITS)


def test_assignment_to_an_attribute_shows_everywhere(output: ImageClassifierOutput) -> None:
    output.loss = STATE
    assert list(output) == ["loss", "logits", "hidden_states"]
    assert output[0] is STATE


def test_equality_is_identity(output: ImageClassifierOutput) -> None:
    assert output.__eq__(output) is True
    assert output != ImageClassifierOutput(logits=LOGITS, hidden_states=(STATE,))


def test_pytree(output: ImageClassifierOutput) -> None:
    doubled = pytree.tree_map(lambda tensor: tensor * 2, output)
    assert type(doubled) is ImageClassifierOutput
    assert doubled.loss is None
    assert torch.equal(doubled.logits, LOGITS * 2)
    assert torch.equal(doubled.hidden_states[0], STATE * 2)
    leaves, spec = pytree.tree_flatten(output)
    assert leaves == [LOGITS, STATE]
    assert pytree.treespec_loads(pytree.treespec_dumps(spec)) == spec


def test_pickle(output: ImageClassifierOutput) -> None:
    copy = pickle.loads(pickle.dumps(output))
    assert torch.equal(copy.logits, LOGITS)
    assert list(copy) == list(output)


def test_segmenter_has_no_attentions() -> None:
    output = SemanticSegmenterOutput(logits=LOGITS)
    assert output.attentions is None
    assert list(output) == ["logits"]
