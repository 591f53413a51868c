"""Which judge is meant by `--judge` and `--judge-url`, and whether it can be asked."""

from __future__ import annotations

import http.client
import json
import os
import re
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from vocalnet_cli.core.errors import UsageError, VocalnetError
from vocalnet_cli.core.evaluation.judging.case import Judge
from vocalnet_cli.core.evaluation.judging.model_judge import Limits, ModelJudge
from vocalnet_cli.core.evaluation.judging.prompts import load_prompts
from vocalnet_cli.core.evaluation.judging.rule import RULE, RuleJudge

DASHSCOPE = "https://dashscope.aliyuncs.com/compatible-mode/v1"
OPENAI = "https://api.openai.com/v1"

_PROBE_S = 5.0


@dataclass(frozen=True)
class Asked:
    """What the command line says of the judge."""

    judge: str | None = None
    """`rule`, `qwen-max`, `gpt-...`, or any model's name with a url."""
    url: str | None = None
    key_env: str | None = None
    """Environment variable that holds the key of `url`."""
    prompts: Path | None = None
    limits: Limits = Limits()


def find_judge(asked: Asked, replies: Path) -> Judge:
    """The judge that is meant; a model's replies are kept in folder `replies`. Raises UsageError, VocalnetError."""
    if asked.judge in (None, RULE) and asked.url is None:
        if asked.prompts is not None:
            raise UsageError("--judge-prompts: the rule asks nothing", "Name a judge too: --judge qwen-max, or --judge-url URL.")
        return RuleJudge()
    if asked.judge == RULE:
        raise UsageError("--judge rule and --judge-url are two judges", "Name one of them.")
    url, key_env = _endpoint(asked)
    if key_env and not os.environ.get(key_env):
        what = asked.judge or url
        raise VocalnetError(f"--judge {what}: {key_env} is not set", f"export {key_env}=..., or judge without a model: --judge rule")
    if asked.limits.max_calls is not None and asked.limits.max_calls < 0:
        raise UsageError(f"--max-judge-calls {asked.limits.max_calls}: less than none", "Give a number of calls, 0 or more.")
    return ModelJudge(asked.judge or "", url, key_env, load_prompts(asked.prompts), asked.limits, replies)


def _endpoint(asked: Asked) -> tuple[str, str | None]:
    """Base url, and the variable that holds the key."""
    if asked.url is not None:
        parts = urlsplit(asked.url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise UsageError(f"--judge-url {asked.url}: not an http address", "Give the base, such as http://127.0.0.1:8000/v1")
        bare = parts.path.rstrip("/").removesuffix("/chat/completions")
        return f"{parts.scheme}://{parts.netloc}{bare or '/v1'}", asked.key_env
    name = str(asked.judge)
    if name.startswith("qwen"):
        return DASHSCOPE, asked.key_env or "DASHSCOPE_API_KEY"
    if re.match(r"gpt-|chatgpt-|o\d", name):
        return os.environ.get("OPENAI_BASE_URL") or OPENAI, asked.key_env or "OPENAI_API_KEY"
    raise UsageError(f"--judge {name}: no such judge", "There are rule, qwen-..., gpt-..., and with --judge-url URL any model there.")


def listed_model(url: str, key_env: str | None) -> str | None:
    """The first model an endpoint lists, None if it lists none. Raises VocalnetError if nobody is there."""
    request = urllib.request.Request(f"{url}/models")
    if key_env:
        request.add_header("Authorization", f"Bearer {os.environ.get(key_env, '')}")
    try:
        with urllib.request.urlopen(request, timeout=_PROBE_S) as response:
            return str(json.loads(response.read(1 << 20))["data"][0]["id"])
    except urllib.error.HTTPError:
        return None
    except urllib.error.URLError as error:
        if isinstance(error.reason, TimeoutError):
            return None
        raise VocalnetError(f"{url}: no judge is there ({error.reason})", "Start it, or correct --judge-url.") from error
    except (OSError, http.client.HTTPException, ValueError, KeyError, IndexError, TypeError):
        return None  # it is there, and has its own ways
