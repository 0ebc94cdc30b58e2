"""From scenes to spatial-temporal-spectral structured data sets (STSSD): tables, registration, the image-set store."""
