"""How files that a catalog names are reached: one value from the settings to whoever opens one."""

from __future__ import annotations

from dataclasses import dataclass, field

from a2mae.stssd.access.hrefs import HrefPolicy, Signer, load_signer
from a2mae.stssd.access.retries import ReadingParameters


@dataclass(frozen=True)
class RemoteAccess:
    """Who signs addresses, where they may lead, and how patient reads are.

    Attributes:
        signing: As `ingest.source.signing`: `none`, or `package.module:function`; local paths are never signed.
        policy: As `ingest.hrefs`: where redirects of remote files may lead; None follows them all.
        reading: As `coregister.reading`: patience over a network, and which checksums are compared.
    """

    signing: str = "none"
    policy: HrefPolicy | None = None
    reading: ReadingParameters = field(default_factory=ReadingParameters)

    def signer(self) -> Signer:
        """What turns an address into the one that is opened; it may remember tokens.

        Raises:
            ValueError: If the hook cannot be imported.
        """
        return load_signer(self.signing)
