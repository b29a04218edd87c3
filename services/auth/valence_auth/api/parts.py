"""The parts of the application that handlers ask for."""

from typing import Annotated

from valence_auth.passwords import Passwords
from valence_auth.settings import Settings
from valence_common.limits import Limiter
from valence_common.web import state

PasswordsDep = Annotated[Passwords, state("passwords")]
LimiterDep = Annotated[Limiter, state("limiter")]
SettingsDep = Annotated[Settings, state("settings")]
