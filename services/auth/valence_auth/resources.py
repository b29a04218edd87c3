"""The resources that the auth service holds for its lifetime."""

from valence_auth.data_export import MAX_CONCURRENT
from valence_auth.oidc.provider import ClientConfig, Provider
from valence_auth.passwords import Passwords
from valence_auth.settings import Settings
from valence_common.concurrency import ConcurrencyLimit
from valence_common.rate_limits import Limiter
from valence_common.web.state import Resources


class AuthResources(Resources):
    """The resources of the auth service; `oidc` is None where no provider is configured."""

    settings: Settings

    def __init__(self, settings: Settings):
        super().__init__(settings)
        self.passwords = Passwords(settings.password_hashers)
        self.limiter = Limiter(self.redis)
        self.exports = ConcurrencyLimit(max_total=MAX_CONCURRENT)
        client = ClientConfig.from_settings(settings)
        self.oidc = None if client is None else Provider(client)
