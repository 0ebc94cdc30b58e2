"""From the image-set store to a batch: draw samples, read them by number, prepare them on the device."""
