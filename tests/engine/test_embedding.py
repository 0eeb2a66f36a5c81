"""Features before the classifier, and the logits that come with them."""

import numpy as np
import pytest
import torch

import mobilevit_fast as mvf
from mobilevit_fast.engine import Engine
from testing.paths import UCMERCED, needs_ucmerced
from tests.engine.engines import CLASSIFIERS, PROCESSOR, expected_logits
from tests.engine.pictures import encoded, every_kind, picture
from tests.integrations import zoo

pytestmark = pytest.mark.filterwarnings("ignore:.* rescaled once more")  # of the file of fractions


@pytest.mark.parametrize("kind", CLASSIFIERS)
def test_neither_embeddings_nor_logits_depend_on_the_batch_size(kind: str) -> None:
    contents = [encoded(picture(70, 80, i), "PNG") for i in range(9)]
    model = zoo.SMALL[kind]()
    outputs = ("embedding", "logits", "score")
    alone = [*Engine(model, PROCESSOR, batch_sizes=(1,), outputs=outputs).stream(contents)]
    np.testing.assert_array_equal([one.logits for one in alone], Engine(model, PROCESSOR)(contents))
    for batch_size in range(2, 10):
        engine = Engine(model, PROCESSOR, batch_sizes=(batch_size,), outputs=outputs, decode_threads=1)
        assert engine.plan(9).batch_size == batch_size
        for found, expected in zip(engine.stream(contents), alone, strict=True):
            np.testing.assert_array_equal(found.embedding, expected.embedding)
            np.testing.assert_array_equal(found.logits, expected.logits)
            assert found.scores == expected.scores


@pytest.mark.parametrize("kind", CLASSIFIERS)
def test_an_embedding_is_what_the_library_calls_it(kind: str) -> None:
    contents = [encoded(picture(64, 64, i), "PNG") for i in range(3)]
    plain = zoo.SMALL[kind]()
    with torch.inference_mode():
        values = PROCESSOR(contents)["pixel_values"]
        if kind == "timm":
            expected = plain.forward_head(plain.forward_features(values), pre_logits=True)
        else:
            expected = plain.mobilevit(values).pooler_output
    for accelerated in (False, True):
        engine = Engine(plain, PROCESSOR, outputs=("embedding",), acceleration=accelerated)
        found = torch.from_numpy(np.stack([one.embedding for one in engine.stream(contents)]))
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", CLASSIFIERS)
def test_embeddings_lead_to_the_logits(kind: str) -> None:
    engine = Engine(zoo.SMALL[kind](), PROCESSOR, outputs=("embedding", "logits", "label"), top_k=2)
    contents = [*every_kind().values()][:5]
    found = [*engine.stream(contents)]
    expected = expected_logits(engine, contents)
    model = engine.model.module
    classifier = model.get_classifier() if kind == "timm" else model.classifier
    for one, logits in zip(found, expected, strict=True):
        assert one.embedding is not None
        assert one.logits is not None
        np.testing.assert_allclose(one.logits, logits, rtol=1e-4, atol=1e-5)
        with torch.inference_mode():
            torch.testing.assert_close(
                classifier(torch.from_numpy(one.embedding)[None])[0], torch.from_numpy(one.logits)
            )


@needs_ucmerced
def test_embeddings_of_a_trained_model_do_not_depend_on_the_batch_size() -> None:
    assert UCMERCED is not None
    model = mvf.MobileViTForImageClassification.from_pretrained(UCMERCED / "hf").eval()
    processor = mvf.MobileViTImageProcessor.from_pretrained(UCMERCED / "hf")
    photos = sorted((UCMERCED / "images").rglob("*.jpg"))[:7]
    alone, together = (
        [*Engine(model, processor, (size,), 1, outputs=("embedding", "logits")).stream(photos)] for size in (1, 7)
    )
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one.embedding, other.embedding)
        np.testing.assert_array_equal(one.logits, other.logits)
