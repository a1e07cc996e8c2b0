"""How tests look at refusals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError


def refused(call: Callable[..., Any], **parameters: Any) -> tuple[int, str]:
    """Status and code of a call that must be refused."""
    with pytest.raises(ClientError) as raised:
        call(**parameters)
    response = raised.value.response
    status: int = response["ResponseMetadata"]["HTTPStatusCode"]
    code: str = response["Error"]["Code"]
    return status, code
