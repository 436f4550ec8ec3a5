"""Images to and from a registry, through the engine: by digest, with the person's login, each refusal named."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ailab.command import keep_secret
from ailab.engine import EngineError, refusal, told
from ailab.errors import AilabError, UsageError
from ailab.i18n import _
from ailab.images import progress
from ailab.images.references import Reference

if TYPE_CHECKING:
    from docker import DockerClient

Tell = Callable[[str], None]
Login = Mapping[str, Any]


class RegistryError(AilabError):
    """A registry that refuses, is not trusted, cannot be reached, or has no such image."""

    kind = "registry"


def login(host: str, environ: Mapping[str, str]) -> Login:
    """Who we are to the registry at `host`: what the variables AILAB_REGISTRY_USER and AILAB_REGISTRY_PASSWORD (or
    _PASSWORD_FILE) say, else what `docker login` has kept, credential helpers included; empty for nobody."""
    user = environ.get("AILAB_REGISTRY_USER")
    if user:
        return {"username": user, "password": keep_secret(_password(environ)), "serveraddress": host}
    from docker import auth
    from docker.errors import DockerException

    try:
        return auth.resolve_authconfig(auth.load_config(), host) or {}
    except DockerException as error:
        raise RegistryError(
            _("What docker login has kept cannot be read: {reason}.").format(reason=str(error).splitlines()[0]),
            remedy=_("Log in anew (docker login {host}), or set AILAB_REGISTRY_USER and AILAB_REGISTRY_PASSWORD_FILE.")
            .format(host=host),
            detail=str(error),
        ) from error  # fmt: skip


def _password(environ: Mapping[str, str]) -> str:
    file = environ.get("AILAB_REGISTRY_PASSWORD_FILE")
    if not file:
        return environ.get("AILAB_REGISTRY_PASSWORD", "")
    try:
        return Path(file).read_text(encoding="utf-8").rstrip("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            _("{path} cannot be read: {reason}.").format(path=file, reason=getattr(error, "strerror", "UTF-8")),
            remedy=_("AILAB_REGISTRY_PASSWORD_FILE names the file with the registry's password."),
        ) from None


@dataclass(frozen=True)
class Registry:
    """One engine's way to the registries; `authorities` is the PEM file that this machine trusts beside its own, as
    [mirrors] ca_bundle names it, for the command that a person is told."""

    client: DockerClient
    login: Login
    authorities: str = ""

    def push(self, reference: Reference, tell: Tell) -> str:
        """Push what the engine calls `reference`; its digest in the registry. What a broken push left there is not
        seen by anybody, and the next one goes on from it."""
        noted = self._follow(self.client.api.push, reference, reference.tag, tell)
        return str(noted.get("Digest") or self._digest(reference))

    def pull(self, reference: Reference, tell: Tell) -> str:
        """Bring `reference` into the engine's store; its digest."""
        self._follow(self.client.api.pull, reference, reference.digest or reference.tag or "latest", tell)
        return reference.digest or self._digest(reference)

    def _digest(self, reference: Reference) -> str:
        with told():
            named = str(reference) if reference.tag or reference.digest else f"{reference}:latest"
            digests = self.client.api.inspect_image(named)["RepoDigests"] or []
        return next(
            (one.partition("@")[2] for one in digests if one.startswith(f"{reference.repository}@")),
            next((one.partition("@")[2] for one in digests), ""),
        )

    def _follow(self, moved: Callable[..., Any], reference: Reference, tag: str, tell: Tell) -> dict[str, Any]:
        """Have the engine move an image, as `moved` of its API does; all that it notes."""
        from docker.errors import APIError

        login = dict(self.login)
        with told():
            try:
                stream = moved(reference.repository, tag=tag, stream=True, decode=True, auth_config=login)
                return progress.follow(stream, tell)
            except progress.Refused as refused:
                raise explained(refused.message, reference, self.authorities) from None
            except APIError as error:
                raise explained(str(error.explanation or error), reference, self.authorities) from error


# What engines pass on of registries and of Go's TLS, and which of our sentences it is; the first that fits.
_UNKNOWN_AUTHORITY = re.compile(r"x509: .*unknown authority|certificate verify failed|x509: .*not trusted")
_WRONG_CERTIFICATE = re.compile(r"x509: (.*)")
_NOT_LET_IN = re.compile(
    r"no basic auth credentials|unauthorized|authentication required|401|denied|403 Forbidden|insufficient_scope"
)
_NOT_THERE = re.compile(r"manifest unknown|not found|name unknown|no such image|repository does not exist", re.I)
_PLAIN_HTTP = re.compile(r"server gave HTTP response to HTTPS client")
_NOT_REACHED = re.compile(
    r"no such host|connection refused|i/o timeout|no route to host|network is unreachable|deadline exceeded"
    r"|Client\.Timeout|server misbehaving|TLS handshake timeout|proxyconnect|\bEOF\b"
)


def explained(said: str, reference: Reference, authorities: str) -> RegistryError | EngineError:
    """What the engine said of a registry, with its cause and the next command. What is the engine's own remains so."""
    host = reference.registry
    if _UNKNOWN_AUTHORITY.search(said):
        folder = f"/etc/docker/certs.d/{host}"
        return RegistryError(
            _("The engine does not trust the certificate of {host}: it is of an authority that it does not know.")
            .format(host=host),
            remedy=_("Give the engine the authority's certificate: sudo install -D -m 644 {file} {folder}/ca.crt")
            .format(file=authorities or "CA.pem", folder=folder),
            detail=said,
        )  # fmt: skip
    if wrong := _WRONG_CERTIFICATE.search(said):
        return RegistryError(
            _("The certificate of {host} does not hold: {reason}.").format(host=host, reason=wrong[1].rstrip(".")),
            remedy=_("Use the name that its certificate is for, or have it renewed; look at the clock: ailab doctor"),
            detail=said,
        )
    if _PLAIN_HTTP.search(said):
        return RegistryError(
            _("The registry {host} does not speak HTTPS.").format(host=host),
            remedy=_("Give it a certificate. For a trial, name it in insecure-registries of /etc/docker/daemon.json."),
            detail=said,
        )
    # Before what is not there: "denied: repository does not exist or may require authorization".
    if _NOT_LET_IN.search(said):
        return RegistryError(
            _("The registry {host} does not let us in, or not to {image}.").format(host=host, image=reference),
            remedy=_("Log in (docker login {host}), or set AILAB_REGISTRY_USER and AILAB_REGISTRY_PASSWORD_FILE. "
                     "Then: may that user have it?").format(host=host),
            detail=said,
        )  # fmt: skip
    if _NOT_REACHED.search(said):
        return RegistryError(
            _("The registry {host} cannot be reached.").format(host=host),
            remedy=_("Check its name and port. The engine has a proxy of its own: docker info shows it."),
            detail=said,
        )
    if _NOT_THERE.search(said):
        return RegistryError(
            _("The registry {host} has no {image}.").format(host=host, image=reference),
            remedy=_("Check the tag. Whoever pushed it sees its name and digest: ailab image list"),
            detail=said,
        )
    return refusal(said)
