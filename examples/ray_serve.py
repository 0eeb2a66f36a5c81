"""Classify images over HTTP: a Ray Serve deployment that answers requests which arrive together in one batch.

    python examples/ray_serve.py --model apple/mobilevit-small --port 8000
    curl --data-binary @photo.jpg localhost:8000/classify
    {"predictions": [{"label": "tabby, tabby cat", "index": 281, "score": 0.61}, …]}

takes `pip install 'ray[data,serve]' pyarrow`. What cannot be read as an image is answered with status 422 and a line
that says why. `--replicas 4 --gpus 1` makes four engines, each with a GPU of its own.
"""

import asyncio
from typing import Annotated

import typer
from ray import serve
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from mobilevit_fast.engine import Prediction
from mobilevit_fast.integrations.ray import Classifier

MAX_BATCH_SIZE = 32
MAX_WAIT_S = 0.01  # that a request waits for others to share a batch with


@serve.deployment(max_ongoing_requests=4 * MAX_BATCH_SIZE)
class Service:
    """One replica: an engine, and the requests that wait for it."""

    def __init__(self, model: str, top_k: int) -> None:
        self.engine = Classifier(model, top_k=top_k).engine
        self.images = self.batches = 0

    @serve.batch(max_batch_size=MAX_BATCH_SIZE, batch_wait_timeout_s=MAX_WAIT_S)
    async def predict(self, images: list[bytes]) -> list[Prediction]:
        """One answer for each request; called with as many as came within the time."""
        self.images += len(images)
        self.batches += 1
        # In a thread, so that meanwhile this one takes requests.
        return await asyncio.to_thread(lambda: [*self.engine.stream(images)])

    async def __call__(self, request: Request) -> Response:
        """Answer one request, while others do the same."""
        match request.method, request.url.path:
            case "POST", "/classify":
                return answer(await self.predict(await request.body()))
            case "GET", "/health":
                return JSONResponse({"status": "ok", "images": self.images, "batches": self.batches})
            case _:
                return PlainTextResponse("expected POST /classify or GET /health\n", status_code=404)


def answer(prediction: Prediction) -> Response:
    """The most probable classes as JSON, or why there are none."""
    if prediction.error is not None:
        return PlainTextResponse(f"{prediction.error}\n", status_code=422)
    classes = zip(prediction.labels, prediction.indices, prediction.scores, strict=True)
    found = [{"label": label, "index": index, "score": score} for label, index, score in classes]
    return JSONResponse({"predictions": found})


def main(
    model: Annotated[str, typer.Option(help="Folder, weights file, hub id, or digits.")] = "digits",
    top_k: Annotated[int, typer.Option(help="Classes to name.")] = 5,
    replicas: Annotated[int, typer.Option(help="Engines, over all machines.")] = 1,
    cpus: Annotated[float, typer.Option(help="Of each replica, which decodes with as many threads.")] = 1,
    gpus: Annotated[float, typer.Option(help="Of each replica.")] = 0,
    host: Annotated[str, typer.Option(help="0.0.0.0 answers other machines as well.")] = "127.0.0.1",
    port: Annotated[int, typer.Option()] = 8000,
) -> None:
    """Classify images over HTTP, until Ctrl-C."""
    serve.start(http_options={"host": host, "port": port})
    resources = {"num_cpus": cpus, "num_gpus": gpus}
    service = Service.options(num_replicas=replicas, ray_actor_options=resources).bind(model, top_k)
    try:
        serve.run(service, blocking=True)
    finally:
        serve.shutdown()


if __name__ == "__main__":
    typer.run(main)
