"""The command `lavue`: live images of a scan for the viewer Lavue on this machine.

Lavue has no encryption, so its stream is for this machine only. The command itself reaches the services as every command does.
"""

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from beamtide import clock
from beamtide.cli.screen import DEFAULT_SITE, Json, SiteFile, answer, say
from beamtide.errors import NoAnswer

if TYPE_CHECKING:
    from beamtide.config.models import Deployment

REFRESH = 0.25


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command(rich_help_panel="Look")(lavue)


def lavue(
    scan: Annotated[str, typer.Argument(help="The scan (default: always the newest).")] = "",
    config: SiteFile = DEFAULT_SITE,
    port: Annotated[int, typer.Option(min=1024, max=65535, help="Of this machine's loopback address.")] = 5535,
    as_json: Json = False,
) -> None:
    """Show maps and reconstructions in Lavue while they grow, until Ctrl-C. With --json: list the images there are now."""
    from beamtide.client.live_maps import Galleries
    from beamtide.config import site

    deployment = site.load(config)
    if as_json:
        with Galleries(deployment, scan) as galleries:
            answer({"pictures": sorted(galleries.look())}, [], as_json=True)
        return
    stream(deployment, scan, port, lambda: False)


def stream(deployment: "Deployment", scan: str, port: int, stopped: Callable[[], bool]) -> None:
    """Send the images of a scan ("": of the newest) to viewers on this machine, until stopped."""
    from beamtide.client.lavue_stream import Picture, Programme
    from beamtide.client.live_maps import Galleries
    from beamtide.pump import Publisher

    with Galleries(deployment, scan) as galleries, Publisher(f"tcp://127.0.0.1:{port}") as publisher:
        say(f"lavue -s zmq -c 127.0.0.1:{port} -x     (with AutoZMQStreamTopics=true in its configuration). Ctrl-C ends.")
        programme, pictures = Programme(), dict[str, Picture]()
        while not stopped():
            with contextlib.suppress(NoAnswer):  # a service is restarting: the viewer keeps what it has
                pictures = galleries.look()
            publisher.send(programme.due(pictures, clock.monotonic()))
            clock.pause(REFRESH)
