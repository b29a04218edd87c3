"""The served models."""

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
    """List the served models."""
    return schemas.ModelPage(items=[schemas.ModelSummary.from_manifest(scorer.manifest)])


@router.get("/models/{version}")
async def model(
    version: Annotated[str, Path(max_length=128)],
    _: Authenticated,
    scorer: ScorerDep,
    settings: SettingsDep,
) -> schemas.Model:
    """Get a served model with its metrics, sources and model card.

    `version` is a version or `name@version`.
    """
    manifest = model_info.find(scorer, version)
    return schemas.Model.from_manifest(manifest, card=model_info.read_card(settings.model_dir))
