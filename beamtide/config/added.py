"""The components that a site file adds to ours: what their files say, and what can be known to be wrong before a start."""

import pathlib
from collections.abc import Iterable

from pydantic import ValidationError

from beamtide import registry
from beamtide.config import yaml_file
from beamtide.config.component import ComponentConfig
from beamtide.config.models import Deployment
from beamtide.errors import BadInput

EVERYTHING = "all"
"""What `beamtide serve` takes for all components."""
Added = dict[str, tuple[ComponentConfig, yaml_file.Document]]


def read(files: Iterable[pathlib.Path]) -> tuple[Added, list[str]]:
    """Read component files; return what they say, by the names of the components, and what is wrong with them."""
    found: Added = {}
    problems: list[str] = []
    for path in files:
        try:
            document = yaml_file.read(path)
            config = yaml_file.validate(document, ComponentConfig)
        except BadInput as error:
            problems.append(str(error))
            continue
        if config.component in found:
            problems.append(f"{document.where(('component',))}: {config.component} stands in two component files; rename one")
        found[config.component] = config, document
    return found, problems


def clashes(added: Added, deployment: Deployment) -> list[str]:
    """Return which names are taken, and which links lead nowhere."""
    ours, known = {*deployment.components()[: -len(added)], EVERYTHING}, deployment.components()
    found = []
    for name, (config, document) in added.items():
        if name in ours:
            found.append(f"{document.where(('component',))}: {name} is the name of a component of ours; choose another")
        for link, to in config.links.items():
            where = document.where(("links", link))
            if to == name:
                found.append(f"{where}: {name} cannot connect to itself")
            elif to not in known:
                found.append(f"{where}: there is no component {to!r}; this site has: {', '.join(known)}")
    return found


def problems(deployment: Deployment, only: str = "") -> list[str]:
    """Return what is wrong with the added components (or only one of them) where their kinds are installed."""
    read_again, found = read(deployment.site.components)
    for name, (config, document) in read_again.items():
        if only in ("", name):
            found += _wrong(deployment, config, document)
    return found


def _wrong(deployment: Deployment, config: ComponentConfig, document: yaml_file.Document) -> list[str]:
    try:
        kind = registry.find("components", config.kind)
    except BadInput as error:
        return [f"{document.where(('kind',))}: {error}"]
    found = [
        f"{document.where(('links',))}: the kind {config.kind} needs to know which component is its {link!r}; add {link}: …"
        for link in kind.links
        if link not in config.links
    ]
    found += [
        f"{document.where(('links', link))}: the kind {config.kind} has no link {link!r}, only {', '.join(kind.links)}"
        for link in config.links
        if link not in kind.links
    ]
    try:
        kind.settings.model_validate(config.settings)
    except ValidationError as error:
        return found + yaml_file.problems(document, kind.settings, error, ("settings",))
    try:
        registry.asked("components", config.kind, lambda: kind.check(deployment, config.component))
    except BadInput as error:
        found.append(f"{document.where(('settings',))}: {error}")
    return found
