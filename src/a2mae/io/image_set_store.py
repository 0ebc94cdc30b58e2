"""The image-set store as Kedro datasets: its address for the node that builds it, the opened store for all others."""

from __future__ import annotations

from typing import Never

from kedro.io import AbstractDataset, DatasetError
from kedro_datasets._typing import ImagePreview

from a2mae.stssd.access.storage import Folder, StoreError, StoreMissingError
from a2mae.stssd.image_sets.store import ImageSetStore


class ImageSetStoreDataset(AbstractDataset[str, ImageSetStore]):
    """Opens a finished store.

    A store is too large to pass through a node: its builder writes it shard by shard and saves here the manifest hash,
    which is held against what is on disk.
    """

    def __init__(
        self,
        *,
        filepath: str,
        credentials: dict[str, object] | None = None,
        metadata: dict[str, object] | None = None,
    ) -> None:
        """Name the store.

        Args:
            filepath: Local folder or fsspec URL.
            credentials: fsspec storage options; never shown.
            metadata: For kedro-viz.
        """
        self._filepath = filepath
        self._credentials = credentials
        self.metadata = metadata

    def load(self) -> ImageSetStore:
        """The opened store."""
        return self._open()

    def save(self, data: str) -> None:
        """Hold the manifest hash that the builder returned against the store on disk.

        Raises:
            DatasetError: If the store is not the one that was built.
        """
        found = self._open().manifest_hash
        if found != data:
            raise DatasetError(
                f"{self._filepath} has manifest {found[:12]}, {data[:12]} was built: did another run write it?"
            )

    def preview(self) -> ImagePreview:
        """A contact sheet for kedro-viz: a row per sensor, images from its first to its last."""
        from a2mae.reporting.previews import contact_sheet, to_base64_png  # noqa: PLC0415 (the registry stays light)

        return ImagePreview(to_base64_png(contact_sheet(self._open())))

    def _open(self) -> ImageSetStore:
        return ImageSetStore.open(self._filepath, self._credentials)

    def _exists(self) -> bool:
        try:
            self._open()
        except StoreError:
            return False
        return True

    def _describe(self) -> dict[str, object]:
        return {"filepath": self._filepath}


class StoreUrlDataset(AbstractDataset[Never, str]):
    """Gives the address of a store that need not exist yet; it is never written."""

    def __init__(self, *, filepath: str, metadata: dict[str, object] | None = None) -> None:
        """Name the address.

        Args:
            filepath: Local folder or fsspec URL.
            metadata: For kedro-viz.
        """
        self._filepath = filepath
        self.metadata = metadata

    def load(self) -> str:
        """The address."""
        return self._filepath

    def save(self, data: Never) -> None:
        """Refuse: the store is written by its builder.

        Raises:
            DatasetError: Always.
        """
        raise DatasetError(f"{self._filepath} is written by the coregister stage, not as a dataset")

    def _exists(self) -> bool:
        try:
            return bool(Folder(self._filepath).sizes())
        except (OSError, StoreMissingError):
            return False

    def _describe(self) -> dict[str, object]:
        return {"filepath": self._filepath}
