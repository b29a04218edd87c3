"""The models that are served."""

from typing import Annotated

from fastapi import APIRouter, Path

from valence_common.web.access import Authenticated
from valence_common.web.app import API
from valence_common.web.request_body import strict
from valence_inference import model_info
from valence_inference.api.dependencies import ScorerDep, SettingsDep
from valence_inference.schemas import models as schemas
from valence_inference.settings import MAX_BODY_BYTES

router = APIRouter(prefix=API, route_class=strict(MAX_BODY_BYTES), tags=["models"])


@router.get("/models")
async def models(_: Authenticated, scorer: ScorerDep) -> schemas.ModelPage:
    """The models that are served."""
    return schemas.ModelPage(items=[model_info.get_summary(scorer)])


@router.get("/models/{version}")
async def model(
    version: Annotated[str, Path(max_length=128)],
    _: Authenticated,
    scorer: ScorerDep,
    settings: SettingsDep,
) -> schemas.Model:
    """A served model's metrics, sources and card; `version` is `name@version` or the version."""
    return model_info.get_model(scorer, settings.model_dir, version)
