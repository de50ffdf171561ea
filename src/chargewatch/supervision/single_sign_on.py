"""Log-in by the office's own identity provider (OpenID Connect), beside name and password.

Authorization code with PKCE, state and nonce; the ID token is verified by the provider's keys.
Nobody gets an account by it: it shows that somebody is a user that was made here.
Source: OpenID Connect Core 1.0, sections 3.1.2 and 3.1.3.7; RFC 7636; by authlib and joserfc.
"""

from __future__ import annotations

import hmac
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx2
from authlib.integrations.base_client import OAuthError
from authlib.integrations.httpx_client import AsyncOAuth2Client
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet
from sqlalchemy import RowMapping

from chargewatch.errors import ChargewatchError, SettingError
from chargewatch.settings import Settings
from chargewatch.storage import users
from chargewatch.storage.database import Database

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA")
"""Of ID tokens: signatures only, no shared secrets and no `none`."""
STRONG = frozenset({"mfa", "otp", "hwk", "swk", "pop", "sc"})
"""Values of `amr` that tell of a second factor (RFC 8176)."""
TIMEOUT_S = 10.0
CLOCKS_OFF_S = 60
METADATA_KEPT_S = 3_600.0


class SignOnError(ChargewatchError):
    """The provider's answer can't be trusted, or names nobody who may log in here."""


class ProviderAwayError(ChargewatchError):
    """The provider does not answer."""


@dataclass(frozen=True, kw_only=True)
class Pending:
    """What a browser keeps between the way to the provider and the way back."""

    state: str
    nonce: str
    verifier: str

    def text(self) -> str:
        """Return it as the browser keeps it."""
        return ".".join((self.state, self.nonce, self.verifier))


def new_pending() -> Pending:
    """Return fresh random values."""
    return Pending(
        state=secrets.token_urlsafe(24),
        nonce=secrets.token_urlsafe(24),
        verifier=secrets.token_urlsafe(48),
    )


def read_pending(text: str) -> Pending:
    """Return what a browser kept.

    Raises: SignOnError.
    """
    parts = text.split(".")
    if len(parts) != 3 or not all(parts):
        raise SignOnError("this log-in was not begun in this browser, or long ago: begin again")
    return Pending(state=parts[0], nonce=parts[1], verifier=parts[2])


@dataclass(frozen=True, kw_only=True)
class Shown:
    """Who somebody is, as the provider says."""

    subject: str
    username: str
    strong: bool  # logged in there by more than a password


class Provider:
    """The identity provider of the settings."""

    def __init__(self, settings: Settings) -> None:
        self._issuer = settings.oidc_issuer.rstrip("/")
        self._settings = settings
        self._metadata: Mapping[str, Any] = {}
        self._metadata_until = 0.0

    @property
    def is_set(self) -> bool:
        """Whether there is one."""
        return bool(self._issuer)

    def _client(self, redirect_uri: str) -> AsyncOAuth2Client:
        if not self._settings.oidc_client_id:
            raise SettingError("CHARGEWATCH_OIDC_ISSUER is set, CHARGEWATCH_OIDC_CLIENT_ID is not")
        return AsyncOAuth2Client(
            client_id=self._settings.oidc_client_id,
            client_secret=self._settings.oidc_client_secret or None,
            token_endpoint_auth_method="client_secret_basic"
            if self._settings.oidc_client_secret
            else "none",
            scope="openid profile email",
            redirect_uri=redirect_uri,
            code_challenge_method="S256",
            timeout=TIMEOUT_S,
        )

    async def _get(self, address: str) -> Mapping[str, Any]:
        try:
            async with httpx2.AsyncClient(timeout=TIMEOUT_S) as client:
                answer = await client.get(address)
                answer.raise_for_status()
                found = answer.json()
        except (httpx2.HTTPError, ValueError) as exc:
            raise ProviderAwayError(
                f"the identity provider does not answer at {address}: {exc}"
            ) from exc
        if not isinstance(found, dict):
            raise ProviderAwayError(f"{address} answers no JSON object")
        return found

    async def _known(self) -> Mapping[str, Any]:
        """Return the provider's metadata, fresh once an hour."""
        if time.monotonic() > self._metadata_until:
            found = await self._get(f"{self._issuer}/.well-known/openid-configuration")
            if str(found.get("issuer", "")).rstrip("/") != self._issuer:
                raise SignOnError(
                    f"the provider calls itself {found.get('issuer')!r}, CHARGEWATCH_OIDC_ISSUER "
                    f"{self._issuer!r}"
                )
            self._metadata, self._metadata_until = found, time.monotonic() + METADATA_KEPT_S
        return self._metadata

    def _endpoint(self, metadata: Mapping[str, Any], name: str) -> str:
        address = str(metadata.get(name, ""))
        scheme = urlsplit(address).scheme
        if scheme != "https" and scheme != urlsplit(self._issuer).scheme:
            raise SignOnError(f"the provider tells no safe address for {name}: {address!r}")
        return address

    async def begin(self, pending: Pending, *, redirect_uri: str) -> str:
        """Return the address at the provider to send a browser to.

        Raises: SignOnError, ProviderAwayError, SettingError.
        """
        metadata = await self._known()
        async with self._client(redirect_uri) as client:
            address, _ = client.create_authorization_url(
                self._endpoint(metadata, "authorization_endpoint"),
                state=pending.state,
                nonce=pending.nonce,
                code_verifier=pending.verifier,
            )
        return str(address)

    async def finish(
        self, pending: Pending, *, state: str, code: str, redirect_uri: str, now_s: float
    ) -> Shown:
        """Return who came back from the provider.

        Args:
            pending: what this browser kept.
            state: as it came back in the address.
            code: likewise.
            redirect_uri: the address to which it came back.
            now_s: seconds since 1970.

        Raises: SignOnError, ProviderAwayError, SettingError.
        """
        if not hmac.compare_digest(state.encode(), pending.state.encode()):
            raise SignOnError("this log-in was not begun in this browser: begin again")
        metadata = await self._known()
        try:
            async with self._client(redirect_uri) as client:
                token = await client.fetch_token(
                    self._endpoint(metadata, "token_endpoint"),
                    code=code,
                    code_verifier=pending.verifier,
                )
        except OAuthError as exc:
            raise SignOnError(f"the provider refuses the log-in: {exc.description}") from exc
        except (httpx2.HTTPError, ValueError) as exc:
            raise ProviderAwayError(f"the identity provider does not answer: {exc}") from exc
        keys = await self._get(self._endpoint(metadata, "jwks_uri"))
        claims = self._claims(str(token.get("id_token", "")), keys, pending.nonce, now_s)
        return self._shown(claims)

    def _claims(
        self, id_token: str, keys: Mapping[str, Any], nonce: str, now_s: float
    ) -> Mapping[str, Any]:
        rules = jwt.JWTClaimsRegistry(
            now=int(now_s),
            leeway=CLOCKS_OFF_S,
            iss={"essential": True, "values": [self._issuer, self._issuer + "/"]},
            aud={"essential": True, "value": self._settings.oidc_client_id},
            sub={"essential": True, "allow_blank": False},
            exp={"essential": True},
            iat={"essential": True},
            nonce={"essential": True, "value": nonce},
        )
        try:
            key_set = KeySet.import_key_set(keys)  # type: ignore[arg-type]
            token = jwt.decode(id_token, key_set, algorithms=list(ALGORITHMS))
            rules.validate(token.claims)
        except (JoseError, ValueError, TypeError, KeyError) as exc:
            raise SignOnError(f"the provider's ID token does not hold: {exc}") from exc
        if token.claims.get("azp", self._settings.oidc_client_id) != self._settings.oidc_client_id:
            raise SignOnError("the provider's ID token was made for another client")
        return token.claims

    def _shown(self, claims: Mapping[str, Any]) -> Shown:
        name = claims.get(self._settings.oidc_username_claim)
        if not isinstance(name, str) or not name:
            raise SignOnError(
                f"the ID token has no {self._settings.oidc_username_claim!r}: set "
                "CHARGEWATCH_OIDC_USERNAME_CLAIM to the claim that holds the user name"
            )
        told = claims.get("amr")
        ways = {str(way) for way in told} if isinstance(told, list) else set()
        return Shown(subject=str(claims["sub"]), username=name, strong=bool(ways & STRONG))


async def user_of(database: Database, shown: Shown) -> RowMapping:
    """Return the enabled user that somebody has shown to be, and bind it to the provider's subject.

    The name decides the first time only: a name that the provider gives to somebody else later
    opens nothing.

    Raises: SignOnError.
    """
    async with database.begin() as connection:
        row = await users.user_by_name(connection, shown.username)
        if row is not None and row["totp_confirmed_at"] is not None and not shown.strong:
            raise SignOnError(
                "the identity provider asked for a password only, and this user has a second "
                "factor here: log in by name, password and code"
            )
        if row is None or row["disabled"]:
            raise SignOnError(
                f"no user {shown.username!r} may log in here: ask an administrator for an account"
            )
        if row["oidc_subject"] is None:
            await users.update_user(connection, row["user_id"], {"oidc_subject": shown.subject})
        elif row["oidc_subject"] != shown.subject:
            raise SignOnError(
                f"user {shown.username!r} was bound to somebody else at the identity provider: ask "
                "an administrator"
            )
    return row
