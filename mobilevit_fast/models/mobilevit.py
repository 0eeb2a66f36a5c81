"""The MobileViT backbone: stem, encoder of five layers, last 1x1 convolution (arXiv 2110.02178, table 4).

Shapes in comments: N images, C channels, H and W height and width of the image; at `output_stride` 32 the encoder's
layers give 1/2, 1/4, 1/8, 1/16 and 1/32 of them, rounded up.
"""

import torch
from torch import nn

from mobilevit_fast.config import MobileViTConfig
from mobilevit_fast.config.size import TRANSFORMER_DEPTHS
from mobilevit_fast.models.block import MobileViTLayer
from mobilevit_fast.models.layers import MobileViTConvLayer, MobileViTMobileNetLayer
from mobilevit_fast.models.outputs import EncoderOutput, MobileViTModelOutput
from mobilevit_fast.models.pretrained import MobileViTPreTrainedModel


class MobileViTEncoder(nn.Module):
    """Two layers of inverted residuals, then three MobileViT blocks.

    An `output_stride` of 16 keeps the last block at the resolution of the one before and dilates it instead; 8 does so
    with the last two (arXiv 1706.05587, section 3.1).
    """

    def __init__(self, config: MobileViTConfig) -> None:
        super().__init__()
        self.config = config
        channels = config.neck_hidden_sizes
        self.layer = nn.ModuleList(
            [
                MobileViTMobileNetLayer(config, channels[0], channels[1], stride=1, num_stages=1),
                MobileViTMobileNetLayer(config, channels[1], channels[2], stride=2, num_stages=3),
            ]
        )
        # Dilation doubles at every block that would leave the features smaller than output_stride allows.
        dilations = {32: (1, 1, 1), 16: (1, 1, 2), 8: (1, 2, 4)}[config.output_stride]
        for block in range(3):
            self.layer.append(
                MobileViTLayer(
                    config,
                    channels[2 + block],
                    channels[3 + block],
                    stride=2,
                    hidden_size=config.hidden_sizes[block],
                    num_stages=TRANSFORMER_DEPTHS[block],
                    dilation=dilations[block],
                )
            )

    def forward(
        self, hidden_states: torch.Tensor, output_hidden_states: bool = False, return_dict: bool = True
    ) -> EncoderOutput | tuple[torch.Tensor | tuple[torch.Tensor, ...], ...]:
        """Features of the stem, (N, neck_hidden_sizes[0], H/2, W/2), to (N, neck_hidden_sizes[5], h, w)."""
        all_hidden_states: tuple[torch.Tensor, ...] | None = () if output_hidden_states else None
        for layer_module in self.layer:
            hidden_states = layer_module(hidden_states)  # (N, C, h, w)
            if all_hidden_states is not None:
                all_hidden_states = (*all_hidden_states, hidden_states)
        output = EncoderOutput(last_hidden_state=hidden_states, hidden_states=all_hidden_states)
        return output if return_dict else output.to_tuple()


class MobileViTModel(MobileViTPreTrainedModel):
    """The backbone without a task.

    Args:
        config: sizes and options.
        expand_output: end with the 1x1 convolution to `neck_hidden_sizes[6]` channels and the mean over the image.
    """

    def __init__(self, config: MobileViTConfig, expand_output: bool = True) -> None:
        super().__init__(config)
        config = self.config
        self.expand_output = expand_output
        channels = config.neck_hidden_sizes
        self.conv_stem = MobileViTConvLayer(config, config.num_channels, channels[0], kernel_size=3, stride=2)
        self.encoder = MobileViTEncoder(config)
        if expand_output:
            self.conv_1x1_exp = MobileViTConvLayer(config, channels[5], channels[6], kernel_size=1)
        self.initialize_weights(self)

    def check_pixel_values(self, pixel_values: torch.Tensor | None) -> torch.Tensor:
        """`pixel_values` where it is a batch of images that fits, else a ValueError."""
        name = type(self).__name__
        if pixel_values is None:
            raise ValueError(f"{name}: expected pixel_values, got None")
        channels = self.config.num_channels
        if pixel_values.ndim != 4 or pixel_values.shape[1] != channels:
            last = pixel_values.ndim in (3, 4) and pixel_values.shape[-1] == channels
            hint = " with channels last; pixel_values.movedim(-1, -3) has them first" if last else ""
            raise ValueError(
                f"{name}: expected pixel_values of shape (batch, {channels}, height, width), "
                f"got {tuple(pixel_values.shape)}{hint}"
            )
        takes_bytes = getattr(self.conv_stem, "takes_bytes", False)  # an accelerated one may
        if not pixel_values.is_floating_point() and not takes_bytes:
            raise ValueError(f"{name}: expected pixel_values of a floating point dtype, got {pixel_values.dtype}")
        return pixel_values

    def forward(
        self,
        pixel_values: torch.Tensor | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> MobileViTModelOutput | tuple[torch.Tensor | tuple[torch.Tensor, ...], ...]:
        """Features of a batch of images.

        Args:
            pixel_values: (batch, num_channels, height, width), any size, floating point.
            output_hidden_states: also return the output of each encoder layer. Default: the configuration's.
            return_dict: return a `MobileViTModelOutput`, else the tuple of its fields. Default: the configuration's.

        Raises:
            ValueError: `pixel_values` is missing or does not fit.
        """
        pixel_values = self.check_pixel_values(pixel_values)  # (N, C, H, W)
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        if return_dict is None:
            return_dict = self.config.return_dict

        embeddings = self.conv_stem(pixel_values)  # (N, C, H/2, W/2)
        encoded = self.encoder(embeddings, output_hidden_states=output_hidden_states)
        last_hidden_state = encoded.last_hidden_state  # (N, C, h, w)
        pooled = None
        if self.expand_output:
            last_hidden_state = self.conv_1x1_exp(last_hidden_state)  # (N, neck_hidden_sizes[6], h, w)
            pooled = last_hidden_state.mean(dim=(-2, -1))  # (N, neck_hidden_sizes[6])

        output = MobileViTModelOutput(last_hidden_state, pooled, encoded.hidden_states)
        return output if return_dict else output.to_tuple()
