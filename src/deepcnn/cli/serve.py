"""Answer about pictures over HTTP."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import urlsplit

import tyro

from deepcnn.cli.arguments import own_network, which_run
from deepcnn.cli.importing import importing
from deepcnn.console import console, say
from deepcnn.errors import ConfigError
from deepcnn.events import Listener

if TYPE_CHECKING:
    from deepcnn.inference.classifier import Classifier
    from deepcnn.serving.page import Page

TOKEN = "DEEPCNN_TOKEN"
FEWEST_SIGNS = 8  # of a token
PACKAGES = ("starlette", "uvicorn", "python_multipart")  # what the extra brings


@dataclass(frozen=True)
class Options:
    """Answer about pictures over HTTP, with a trained network: a page, POST /predict, GET /health.

    In the page the network answers by itself, and no picture is sent. If the page cannot compute
    the network, it sends pictures here. Stop the server with Ctrl-C or SIGTERM; it finishes the
    requests that it has begun.
    """

    run: tyro.conf.Positional[Path | None] = None
    """Directory of the run, or a file of deepcnn export (.onnx or .safetensors); None: the newest
    run below runs/."""
    host: str = "127.0.0.1"
    """Address to listen at. If other machines can reach it, a token is needed."""
    port: int = 8000
    """Port to listen at; 0: any free port."""
    token: str | None = None
    """Secret that each request must carry, as Authorization: Bearer TOKEN; browsers ask for it as a
    password. None: the environment variable DEEPCNN_TOKEN, which no list of processes shows."""
    cors: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Another site whose pages may send requests, such as https://example.org. May be given several
    times."""
    verbose: bool = False
    """Print a line for each request on standard error."""
    max_bytes: int = 16 * 2**20
    """Largest size of a request, in bytes."""
    max_pictures: int = 64
    """Most pictures in a request."""
    max_waiting: int = 128
    """Most requests that wait for an answer at a time; any further one is told to try again."""
    timeout: float = 10.0
    """Seconds for which a peer may be silent during a request."""
    step: int | None = None
    """Step of the checkpoint. None: the best one, if the run keeps it; else the newest."""
    averaged: bool = True
    """Use the moving averages of the parameters, if the run keeps them."""
    device: str = "auto"
    """auto (cuda, else mps, else cpu), or any device that torch knows."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Number format of the multiplications. bf16 is faster if the hardware has it."""
    threads: int | None = None
    """Processor threads; None: torch's choice."""
    runtime: Literal["auto", "torch", "onnxruntime", "openvino"] = "auto"
    """What computes. auto: torch for a run and for weights; for an ONNX file, the faster one of
    ONNX Runtime and OpenVINO."""
    model: Annotated[str | None, tyro.conf.arg(name="model.name")] = None
    """Your own network, as package.module:function. Its code runs only if you name it here."""


def run(options: Options) -> int:
    """Serve until a signal asks to stop."""
    token = _checked(options)
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(f"serve needs {' and '.join(missing)}: pip install 'deepcnn[serve]'")
    from deepcnn.serving import server
    from deepcnn.serving.app import Access, make_app
    from deepcnn.serving.limits import Limits
    from deepcnn.serving.service import Service

    limits = Limits(
        bytes=options.max_bytes,
        pictures=options.max_pictures,
        waiting=options.max_waiting,
        seconds=options.timeout,
        held=max(Limits.held, options.max_bytes),
    )
    with server.bound(options.host, options.port, anywhere=token is not None) as socket:
        path = which_run(options.run)
        with importing(), console(as_json=False, to="stderr") as tell:
            classifier, page = _opened(path, options, tell)
        service = Service(classifier, limits, path.resolve().name)
        access = Access(host=options.host, token=token, origins=options.cors)
        address = server.listen(socket)
        say(f"Answers come from {path}: {classifier!r}")
        if page.sends_since is not None:
            say(f"The page sends its pictures here: {page.sends_since}")
        say(f"Open {address} (Ctrl-C stops)")
        try:
            server.run(make_app(service, page, access), socket, limits, verbose=options.verbose)
        finally:
            service.close()
    return 0


def _opened(path: Path, options: Options, tell: Listener) -> tuple[Classifier, Page]:
    """Return what answers, and the page for it."""
    from deepcnn.inference import load
    from deepcnn.serving.page import Page

    asked: dict[str, Any] = {
        "step": options.step,
        "averaged": options.averaged,
        "device": options.device,
        "precision": options.precision,
        "threads": options.threads,
        "model": own_network(options.model),
        "emit": tell,
    }
    if load.is_onnx(path) or options.runtime not in ("auto", "torch"):
        classifier = load.load(path, **asked, runtime=options.runtime)
        return classifier, Page.upload("an ONNX file is not computed in a page")
    trained, place = load.open_trained(path, **asked)
    page = Page.of(trained)  # before the network goes to its device
    return trained.classifier(place), page


def _checked(options: Options) -> str | None:
    """Return the token, None without one; raise ConfigError for options that cannot be used."""
    if not 0 <= options.port <= 65535:
        raise ConfigError(f"--port: expected 0 to 65535, found {options.port}")
    for name in ("max_bytes", "max_pictures", "max_waiting", "timeout"):
        if not getattr(options, name) > 0:
            flag = f"--{name.replace('_', '-')}"
            raise ConfigError(f"{flag}: expected more than 0, found {getattr(options, name)}")
    for origin in options.cors:
        parts = urlsplit(origin)
        if origin != "*" and origin != f"{parts.scheme}://{parts.netloc}":
            raise ConfigError(f"--cors: expected an origin such as https://example.org, {origin!r}")
    token = options.token if options.token is not None else os.environ.get(TOKEN) or None
    if token is not None and not (
        len(token) >= FEWEST_SIGNS and token.isascii() and token.isprintable() and " " not in token
    ):
        raise ConfigError(
            f"the token: expected at least {FEWEST_SIGNS} signs of ASCII without spaces, such as "
            "python -c 'import secrets; print(secrets.token_urlsafe())' prints"
        )
    return token
