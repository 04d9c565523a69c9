"""Models of a hub: what is asked first, what is fetched while a merge runs, what is sent there.

Everything goes through `huggingface_hub`, which is loaded when a recipe first names a model that is no folder; it knows
the environment (HF_HOME, HF_HUB_CACHE, HF_TOKEN, HF_ENDPOINT, HF_HUB_OFFLINE) and keeps the cache.
"""

from pymerge.hub.fetcher import Fetcher
from pymerge.hub.models import Hub
from pymerge.hub.push import Publisher, push

__all__ = ["Fetcher", "Hub", "Publisher", "push"]
