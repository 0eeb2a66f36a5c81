"""Options that several commands have."""

from typing import Annotated

import typer

Model = Annotated[
    str,
    typer.Option(
        help="Folder, weights file or model id of the Hugging Face hub; `digits` is the checkpoint of handwritten "
        "digits in the package (./digits is a folder of that name)."
    ),
]
Processor = Annotated[
    str | None, typer.Option(help="Folder or hub id whose preprocessor_config.json to use instead of the model's.")
]
Accelerate = Annotated[
    bool, typer.Option("--accelerate/--no-accelerate", help="Run fused operators, or plain PyTorch.")
]
Dtype = Annotated[str, typer.Option(help="Type of weights and computation: float32, bfloat16 or float16.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1 ...; by default the GPU if there is one.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Preprocessing = Annotated[
    str,
    typer.Option(
        help="exact: to the bit the image processor's; fast: JPEG may be decoded at a half, a quarter or an eighth."
    ),
]
