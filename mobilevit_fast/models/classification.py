"""Image classification: the backbone and a linear layer.

Shapes in comments: N images, L labels, F = neck_hidden_sizes[6] pooled features.
"""

import torch
from torch import nn

from mobilevit_fast.config import MobileViTConfig
from mobilevit_fast.models.layers import MobileViTConvLayer
from mobilevit_fast.models.mobilevit import MobileViTModel
from mobilevit_fast.models.outputs import ImageClassifierOutput
from mobilevit_fast.models.pretrained import MobileViTPreTrainedModel


def infer_problem_type(config: MobileViTConfig, labels: torch.Tensor) -> str:
    """The configuration's `problem_type`, or what `num_labels` and the labels' dtype say where it has none.

    One label is a regression; several are single-label classification where `labels` holds class indices (int64 or
    int32), else multi-label classification.
    """
    if config.problem_type is not None:
        return config.problem_type
    if config.num_labels == 1:
        return "regression"
    if labels.dtype in (torch.int64, torch.int32):
        return "single_label_classification"
    return "multi_label_classification"


def classification_loss(logits: torch.Tensor, labels: torch.Tensor, config: MobileViTConfig) -> torch.Tensor:
    """Mean loss of a batch, by problem type.

    Args:
        logits: (N, L).
        labels: for regression targets (N, L), or (N,) where L is 1: mean squared error. For a single label class
            indices (N,), -100 is left out: cross entropy. For several labels (N, L) of 0 to 1: binary cross entropy.

    Raises:
        ValueError: there is no classifier, or the labels have another shape.
    """
    num_labels = config.num_labels
    if num_labels == 0:
        raise ValueError("MobileViTForImageClassification: expected no labels with num_labels=0, got some")
    problem_type = infer_problem_type(config, labels)
    labels = labels.to(logits.device)
    if problem_type == "single_label_classification":
        fits = labels.numel() == len(logits) and not labels.is_floating_point()
        _check_labels(problem_type, labels, fits, f"({len(logits)},) and an integer dtype")
        return nn.functional.cross_entropy(logits, labels.flatten().long())
    if problem_type == "regression" and num_labels == 1:
        _check_labels(problem_type, labels, labels.numel() == len(logits), f"({len(logits)},)")
        return nn.functional.mse_loss(logits.flatten(), labels.flatten().to(logits.dtype))
    _check_labels(problem_type, labels, labels.shape == logits.shape, str(tuple(logits.shape)))
    if problem_type == "regression":
        return nn.functional.mse_loss(logits, labels.to(logits.dtype))
    return nn.functional.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype))


def _check_labels(problem_type: str, labels: torch.Tensor, ok: bool, expected: str) -> None:
    if not ok:
        raise ValueError(
            f"MobileViTForImageClassification: expected labels of shape {expected} for {problem_type}, "
            f"got {tuple(labels.shape)} of {labels.dtype}"
        )


class MobileViTClassifierHead(nn.Module):
    """The end of a classification model by itself: 1x1 convolution, mean over the image, linear layer.

    Args:
        config: activation and dropout.
        in_channels: of the features.
        expanded_channels: of the convolution.
        num_labels: of the linear layer.
    """

    def __init__(self, config: MobileViTConfig, in_channels: int, expanded_channels: int, num_labels: int) -> None:
        super().__init__()
        self.conv_1x1_exp = MobileViTConvLayer(config, in_channels, expanded_channels, kernel_size=1)
        self.dropout = nn.Dropout(config.classifier_dropout_prob)
        self.classifier = nn.Linear(expanded_channels, num_labels)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        pooled = self.conv_1x1_exp(features).mean(dim=(-2, -1))  # (N, C, h, w) -> (N, F)
        return self.classifier(self.dropout(pooled))  # (N, L)


class MobileViTForImageClassification(MobileViTPreTrainedModel):
    """MobileViT with a linear classifier on the mean of its features. With `num_labels=0` it returns that mean."""

    def __init__(self, config: MobileViTConfig) -> None:
        super().__init__(config)
        config = self.config
        self.num_labels = config.num_labels
        self.mobilevit = MobileViTModel(config)
        self.dropout = nn.Dropout(config.classifier_dropout_prob)
        self.classifier = (
            nn.Linear(config.neck_hidden_sizes[6], config.num_labels) if config.num_labels > 0 else nn.Identity()
        )
        self.initialize_weights(self.classifier)

    def forward(
        self,
        pixel_values: torch.Tensor | None = None,
        output_hidden_states: bool | None = None,
        labels: torch.Tensor | None = None,
        return_dict: bool | None = None,
    ) -> ImageClassifierOutput | tuple[torch.Tensor | tuple[torch.Tensor, ...], ...]:
        """Logits of a batch of images.

        Args:
            pixel_values: (batch, num_channels, height, width), any size, floating point.
            output_hidden_states: also return the output of each encoder layer. Default: the configuration's.
            labels: give the loss as well, see `classification_loss`.
            return_dict: return an `ImageClassifierOutput`, else the tuple of its fields. Default: the configuration's.

        Raises:
            ValueError: `pixel_values` is missing, or a tensor does not fit.
        """
        if return_dict is None:
            return_dict = self.config.return_dict
        features = self.mobilevit(pixel_values, output_hidden_states=output_hidden_states, return_dict=True)
        logits = self.classifier(self.dropout(features.pooler_output))  # (N, F) -> (N, L)
        loss = None if labels is None else classification_loss(logits, labels, self.config)  # ()
        output = ImageClassifierOutput(loss, logits, features.hidden_states)
        return output if return_dict else output.to_tuple()
