"""Rules of the libraries whose models can be accelerated, a module for each, read once its library is in use."""

from mobilevit_fast.acceleration.rules import register

register("native", "mobilevit_fast.models", f"{__name__}.own")
register("transformers", "transformers.models.mobilevit.modeling_mobilevit", f"{__name__}.transformers")
register("timm", "timm.models.mobilevit", f"{__name__}.timm")
