"""Texts scored as they are typed: a WebSocket (`docs/live.md`)."""

from fastapi import APIRouter, WebSocket
from starlette.exceptions import HTTPException

from valence_common.web.access import Public
from valence_common.web.app import API
from valence_common.web.request_body import strict
from valence_inference.api.dependencies import (
    AnalyzeConnection,
    ConnectionMetricsDep,
    HistoryDep,
    RequestLimiterDep,
    ScorerDep,
    SettingsDep,
    UsageDep,
)
from valence_inference.api.websocket_session import WebSocketSession
from valence_inference.settings import MAX_BODY_BYTES

router = APIRouter(prefix=API, route_class=strict(MAX_BODY_BYTES), tags=["sentiment"])


@router.websocket("/sentiment/stream")
async def stream(
    socket: WebSocket,
    stream: AnalyzeConnection,
    scorer: ScorerDep,
    history: HistoryDep,
    meter: RequestLimiterDep,
    usage: UsageDep,
    settings: SettingsDep,
    metrics: ConnectionMetricsDep,
) -> None:
    """Score what comes, until either side ends it."""
    conversation = WebSocketSession(
        socket,
        stream,
        scorer=scorer,
        history=history,
        meter=meter,
        usage=usage,
        settings=settings,
        metrics=metrics,
    )
    await conversation.run()


@router.get("/sentiment/stream", include_in_schema=False, dependencies=[Public])
async def stream_without_upgrade() -> None:
    """Say what is spoken here to who does not speak it."""
    speak = {"Upgrade": "websocket", "Connection": "upgrade", "Sec-WebSocket-Version": "13"}
    raise HTTPException(426, headers=speak)
