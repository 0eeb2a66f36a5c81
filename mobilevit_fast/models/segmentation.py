"""Semantic segmentation: the backbone and the head of DeepLabV3 (arXiv 1706.05587).

Shapes in comments: N images, C = neck_hidden_sizes[5] features, K = aspp_out_channels, L labels, h and w height and
width of the features, H and W those of the label map.
"""

import torch
from torch import nn

from mobilevit_fast.config import MobileViTConfig
from mobilevit_fast.models.layers import MobileViTConvLayer
from mobilevit_fast.models.mobilevit import MobileViTModel
from mobilevit_fast.models.outputs import SemanticSegmenterOutput
from mobilevit_fast.models.pretrained import MobileViTPreTrainedModel


class MobileViTASPPPooling(nn.Module):
    """The image-level branch of ASPP: global mean, 1x1 convolution, spread over the image again."""

    def __init__(self, config: MobileViTConfig, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.global_pool = nn.AdaptiveAvgPool2d(output_size=1)
        self.conv_1x1 = MobileViTConvLayer(config, in_channels, out_channels, kernel_size=1, use_activation="relu")

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        pooled = self.global_pool(features)  # (N, C, h, w) -> (N, C, 1, 1)
        pooled = self.conv_1x1(pooled)  # (N, K, 1, 1)
        return nn.functional.interpolate(
            pooled, size=features.shape[-2:], mode="bilinear", align_corners=False
        )  # (N, K, h, w)


class MobileViTASPP(nn.Module):
    """Atrous spatial pyramid pooling (arXiv 1706.05587, section 3.3): five views of different reach, then a 1x1."""

    def __init__(self, config: MobileViTConfig) -> None:
        super().__init__()
        in_channels = config.neck_hidden_sizes[5]
        out_channels = config.aspp_out_channels
        self.convs = nn.ModuleList(
            [
                MobileViTConvLayer(config, in_channels, out_channels, kernel_size=1, use_activation="relu"),
                *(
                    MobileViTConvLayer(
                        config, in_channels, out_channels, kernel_size=3, dilation=rate, use_activation="relu"
                    )
                    for rate in config.atrous_rates
                ),
                MobileViTASPPPooling(config, in_channels, out_channels),
            ]
        )
        pyramid_channels = len(self.convs) * out_channels
        self.project = MobileViTConvLayer(config, pyramid_channels, out_channels, kernel_size=1, use_activation="relu")
        self.dropout = nn.Dropout(config.aspp_dropout_prob)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        pyramid = torch.cat([conv(features) for conv in self.convs], dim=1)  # (N, C, h, w) -> (N, 5*K, h, w)
        return self.dropout(self.project(pyramid))  # (N, K, h, w)


class MobileViTDeepLabV3(nn.Module):
    """The segmentation head: ASPP, dropout of whole channels, a 1x1 convolution to one channel per label."""

    def __init__(self, config: MobileViTConfig) -> None:
        super().__init__()
        self.aspp = MobileViTASPP(config)
        self.dropout = nn.Dropout2d(config.classifier_dropout_prob)
        self.classifier = MobileViTConvLayer(
            config,
            config.aspp_out_channels,
            config.num_labels,
            kernel_size=1,
            bias=True,
            use_normalization=False,
            use_activation=False,
        )

    def forward(self, hidden_states: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """Hidden states of the encoder, of which the last, (N, C, h, w), is used, to logits (N, L, h, w)."""
        features = self.aspp(hidden_states[-1])  # (N, K, h, w)
        features = self.dropout(features)  # (N, K, h, w)
        return self.classifier(features)  # (N, L, h, w)


def segmentation_loss(logits: torch.Tensor, labels: torch.Tensor, ignore_index: int) -> torch.Tensor:
    """Mean cross entropy of the pixels whose label is not `ignore_index`, at the resolution of the labels.

    Args:
        logits: (N, L, h, w), resized bilinearly to the labels' height and width.
        labels: (N, H, W), class indices.

    Raises:
        ValueError: the labels have another shape or are not integers.
    """
    if labels.ndim != 3 or len(labels) != len(logits) or labels.is_floating_point():
        raise ValueError(
            f"MobileViTForSemanticSegmentation: expected integer labels of shape ({len(logits)}, height, width), "
            f"got {tuple(labels.shape)} of {labels.dtype}"
        )
    upsampled = nn.functional.interpolate(
        logits, size=labels.shape[-2:], mode="bilinear", align_corners=False
    )  # (N, L, H, W)
    return nn.functional.cross_entropy(upsampled, labels.long(), ignore_index=ignore_index)  # ()


class MobileViTForSemanticSegmentation(MobileViTPreTrainedModel):
    """MobileViT with the DeepLabV3 head."""

    def __init__(self, config: MobileViTConfig) -> None:
        super().__init__(config)
        config = self.config
        if config.num_labels < 1:
            raise ValueError(
                f"MobileViTConfig.num_labels: expected at least 1 for segmentation, got {config.num_labels}"
            )
        self.num_labels = config.num_labels
        self.mobilevit = MobileViTModel(config, expand_output=False)
        self.segmentation_head = MobileViTDeepLabV3(config)
        self.initialize_weights(self.segmentation_head)

    def forward(
        self,
        pixel_values: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> SemanticSegmenterOutput | tuple[torch.Tensor | tuple[torch.Tensor, ...], ...]:
        """Logits of every pixel of the features of a batch of images.

        Args:
            pixel_values: (batch, num_channels, height, width), any size, floating point.
            labels: class indices (batch, any height, any width); give the loss as well, see `segmentation_loss`.
            output_hidden_states: also return the output of each encoder layer. Default: the configuration's.
            return_dict: return a `SemanticSegmenterOutput`, else the tuple of its fields. Default: the configuration's.

        Raises:
            ValueError: `pixel_values` is missing, a tensor does not fit, or there are labels but only one class.
        """
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        if return_dict is None:
            return_dict = self.config.return_dict
        if labels is not None and self.config.num_labels == 1:
            raise ValueError("MobileViTForSemanticSegmentation: expected num_labels of at least 2 for a loss, got 1")

        features = self.mobilevit(pixel_values, output_hidden_states=True, return_dict=True)
        logits = self.segmentation_head(features.hidden_states)  # (N, L, h, w)
        loss = None
        if labels is not None:
            loss = segmentation_loss(logits, labels, self.config.semantic_loss_ignore_index)  # ()
        output = SemanticSegmenterOutput(loss, logits, features.hidden_states if output_hidden_states else None)
        return output if return_dict else output.to_tuple()
