"""What S3 means, once, over any engine: the one object the S3 front is given.

Owns the composition; each part has its module:

=============  =====================  ==================================================
attribute      class                  methods (all async)
=============  =====================  ==================================================
``buckets``    ``bucket.Buckets``     ``list create head check owner delete``
``objects``    ``object.Objects``     ``put open head parts delete delete_many copy``
``listing``    ``listing.Lists``      ``objects versions``
``uploads``    ``upload.Uploads``     ``create put_part copy_part complete abort list_parts list``
``tags``       ``tags.Tags``          ``get put delete``
``acls``       ``acl.Acls``           ``get_bucket put_bucket get_object put_object``
``settings``   ``configuration``      ``tags ownership public_block`` and ``put_`` of each
=============  =====================  ==================================================

Refusals are ``S3Error``; engine errors pass unchanged. Invariant: nothing of a body is visible
before all of it is stored and what the client declared about it was compared.
"""

from __future__ import annotations

from concurrent.futures import Executor
from typing import Final

from appliance.core.ports import Clock, Entropy, KeyStore
from appliance.engine.interface import Engine
from appliance.objects.acl import Acls
from appliance.objects.bucket import Buckets
from appliance.objects.configuration import Configuration
from appliance.objects.context import QuotaSource, open_context
from appliance.objects.limits import ObjectLimits
from appliance.objects.listing import Lists
from appliance.objects.object import Objects
from appliance.objects.tags import Tags
from appliance.objects.upload import Uploads


class ObjectStore:
    """Used from one event loop. ``hashing`` is shared and stays the caller's to shut down.

    ``public_access`` lets owners open buckets and objects to everybody; without it access lists
    that do are refused, and those that are there give nobody anything.
    """

    def __init__(
        self,
        engine: Engine,
        keys: KeyStore,
        clock: Clock,
        entropy: Entropy,
        limits: ObjectLimits,
        hashing: Executor,
        *,
        quotas: QuotaSource | None = None,
        public_access: bool = False,
    ) -> None:
        context = open_context(
            engine, keys, clock, entropy, limits, hashing, quotas, public_access=public_access
        )
        self.limits: Final = limits
        self.buckets: Final = Buckets(context)
        self.objects: Final = Objects(context)
        self.listing: Final = Lists(context)
        self.uploads: Final = Uploads(context)
        self.tags: Final = Tags(context)
        self.acls: Final = Acls(context)
        self.settings: Final = Configuration(context)
        self._engine: Final = engine

    @property
    def missing(self) -> str:
        """See ``Engine.missing``."""
        return self._engine.missing()
